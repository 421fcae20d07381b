"""When: is there an order in which things appear, the same for other seeds, and from coarse to fine?

x̂₀ of generated images is encoded after every step; a label's evidence is the log-odds of its probe on those
activations. A prototype or a label has emerged from the step on from which it stays beyond half of its change
(`model.emergence`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from model.attributes import Attributes
from model.emergence import Emergence, emergence_timesteps
from model.patronus import Patronus
from model.statistics import ActivationStatistics
from training.data.cartoon_faces.attributes import LABELS, Value
from training.data.cartoon_faces.drawing import SIZE, changed_pixels
from training.data.cartoon_faces.faces import sample_faces
from training.evaluation.emergence import emergence_curves

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

SEED = 2_000_029


@dataclass(frozen=True, eq=False)
class Order:
    """Timesteps at which m prototypes (n, m) and K labels (n, K) emerge in n images, NEVER included."""

    names: tuple[str, ...]
    prototypes: Int64
    labels: Int64


def measure(
    patronus: Patronus, attributes: Attributes, statistics: ActivationStatistics, s: Float32
) -> Order:
    """Of images generated under s (n, m) from random x_T, as the service does it."""
    s_hat, timesteps = emergence_curves(patronus, s, seed=SEED)
    n, k, m = s_hat.shape
    logits = attributes.probe_logits(s_hat.reshape(n * k, m), statistics).reshape(n, k, -1)
    return Order(
        attributes.names,
        emergence_timesteps(s_hat, timesteps),
        emergence_timesteps(logits.astype(np.float32), timesteps),
    )


def agreement(first: Int64, second: Int64) -> float:
    """Spearman's correlation of the median timesteps (n, N) of the same N things in two lots of images."""
    medians = [Emergence.over_images(emergence).median for emergence in (first, second)]
    known = ~np.isnan(medians[0]) & ~np.isnan(medians[1])
    return float(spearmanr(medians[0][known], medians[1][known]).statistic)


def changed_area(label: Value, num_faces: int = 64) -> float:
    """Share of the picture that changes with a label: how coarse it is."""
    faces = sample_faces(SEED, num_faces)
    attribute = label.attribute
    other = attribute.values[(label.index + 1) % len(attribute.values)]
    with_it, without = (faces.with_value(attribute.name, value) for value in (label.name, other))
    return float(changed_pixels(with_it, without, SIZE).mean())


def table_of(order: Order) -> list[str]:
    """Markdown lines, for any data set; how coarse labels are is known of cartoon faces only."""
    labels = Emergence.over_images(order.labels)
    areas = {label.name: changed_area(label) for label in LABELS if label.name in order.names}
    lines = [
        f"Prototypes: order in one half of the images against the other, Spearman "
        f"{agreement(order.prototypes[::2], order.prototypes[1::2]):.2f}. Labels: "
        f"{agreement(order.labels[::2], order.labels[1::2]):.2f}.",
    ]
    if areas:
        medians = [labels.median[order.names.index(name)] for name in areas]
        known = ~np.isnan(medians)
        correlation = spearmanr(np.array(medians)[known], np.array(list(areas.values()))[known]).statistic
        lines[0] += f" Timestep of a label against the area that changes with it: {correlation:.2f}."
    lines += [
        "",
        "| label | area | emerges at (T = 1000 is noise) | quartiles | in images |",
        "|---|---|---|---|---|",
    ]
    for k in np.argsort(-np.nan_to_num(labels.median, nan=-1.0)):
        area = f"{100 * areas[order.names[k]]:.1f}%" if order.names[k] in areas else ""
        if labels.count[k]:
            lines.append(
                f"| {order.names[k]} | {area} | {labels.median[k]:.0f} "
                f"| {labels.low[k]:.0f} to {labels.high[k]:.0f} | {labels.count[k]} / {len(order.labels)} |"
            )
        else:
            lines.append(f"| {order.names[k]} | {area} | never | | 0 / {len(order.labels)} |")
    return lines
