"""A picture of when each prototype of a bundle emerges, coarse before fine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from model.bundle import Bundle
from model.transforms import to_picture

ROWS_PER_CHART = 40
NUM_PATCHES = 3
PATCH_POINTS = 18
LABEL_POINTS = 24


def plot_emergence(bundle: Bundle, path: Path) -> None:
    """Median and quartiles of every prototype's emergence timestep, earliest on top, beside its patches.

    Fainter where it emerges in fewer of the images; prototypes that emerge in none come last.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    order = earliest_first(bundle)
    num_charts = -(-len(order) // ROWS_PER_CHART)
    rows = -(-len(order) // num_charts)
    figure = Figure(figsize=(7.0 * num_charts, 1.2 + 0.32 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    charts = figure.subplots(1, num_charts, sharex=True, squeeze=False)[0]
    for i, chart in enumerate(charts):
        _draw(chart, bundle, order[i * rows : (i + 1) * rows], rows)
    num_images = bundle.metrics.get("emergence", {}).get("num_images", "some")
    figure.suptitle(
        f"{bundle.name}: when each prototype emerges, median and quartiles of {num_images} images"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def earliest_first(bundle: Bundle) -> list[int]:
    """Prototypes in the order in which they emerge; those that never do come last."""
    timesteps = [prototype.emergence_timestep for prototype in bundle.prototypes]
    return sorted(range(len(timesteps)), key=lambda j: (timesteps[j] is None, -(timesteps[j] or 0), j))


def _draw(chart: Any, bundle: Bundle, order: list[int], rows: int) -> None:
    """One column of the picture, for the prototypes in `order`."""
    for row, j in enumerate(order):
        prototype = bundle.prototypes[j]
        _draw_patches(chart, bundle, j, row)
        if prototype.emergence_timestep is None or prototype.emergence_quartiles is None:
            continue
        look = {"color": "tab:blue", "alpha": 0.2 + 0.8 * (prototype.emergence_share or 0.0)}
        chart.plot(prototype.emergence_quartiles, [row, row], linewidth=2, **look)
        chart.plot([prototype.emergence_timestep], [row], marker="o", markersize=6, **look)
    chart.set_yticks(range(len(order)), [bundle.prototypes[j].name or str(j) for j in order], fontsize=8)
    chart.set_ylim(rows - 0.5, -0.5)
    chart.set_xlim(bundle.config.schedule.num_timesteps, 0)
    chart.set_xlabel("timestep: noise on the left, the image on the right")
    chart.grid(axis="x", alpha=0.3)


def _draw_patches(chart: Any, bundle: Bundle, j: int, row: int) -> None:
    """The nearest training patches, to the left of the prototype's label, nearest first from the right."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    if bundle.pictures is None or bundle.pictures.patches is None:
        return
    for i, patch in enumerate(bundle.pictures.patches.pixels[j][:NUM_PATCHES]):
        picture = OffsetImage(
            np.asarray(to_picture(patch).convert("RGB")), zoom=PATCH_POINTS / max(patch.shape[1:])
        )
        place = (-LABEL_POINTS - (i + 0.5) * PATCH_POINTS * 1.1, 0)
        box = AnnotationBbox(
            picture,
            (0.0, row),
            xybox=place,
            xycoords=("axes fraction", "data"),
            boxcoords="offset points",
            frameon=False,
            pad=0.0,
            annotation_clip=False,
        )
        chart.add_artist(box)
