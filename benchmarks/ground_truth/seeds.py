"""Two training runs that differ in their seed only: do they find the same prototypes, in the same order?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.ground_truth import when
from benchmarks.ground_truth.small_models import run_directory, train_in
from benchmarks.ground_truth.stability import match, matching_lines, predictability
from benchmarks.ground_truth.when import Order, agreement
from model.statistics import ActivationStatistics
from training.config import TrainConfig
from training.data import load_dataset
from training.data.cartoon_faces.source import SPLITS
from training.evaluation.attributes import measure_attributes
from training.exemplars import encode_all

Float32 = npt.NDArray[np.float32]

NUM_IMAGES = 96
"""Generated, for the order of emergence."""


@dataclass(frozen=True, eq=False)
class Run:
    """s: (N, m), of the test split; best_auroc: (K,), of single prototypes, either sign."""

    seed: int
    s: Float32
    order: Order
    best_auroc: npt.NDArray[np.float64]


def measure(config: TrainConfig, runs: Path) -> Run:
    """Train a model, unless it is in `runs`, and read it."""
    train, test = (load_dataset(config.dataset, None, split, config.model.image) for split in SPLITS)
    patronus = train_in(run_directory(runs, f"seed-{config.seed}", config), config, train)
    s, _ = encode_all(patronus, test.pixels)
    s_train, _ = encode_all(patronus, train.pixels)
    statistics = ActivationStatistics.measure(s_train)
    attributes = measure_attributes(train, test, s_train, s, statistics)
    assert attributes is not None, "cartoon faces have labels"
    order = when.measure(patronus, attributes, statistics, s[:NUM_IMAGES])
    best = np.maximum(attributes.auroc, 1.0 - attributes.auroc).max(axis=0)
    return Run(config.seed, s, order, best)


def table_of(first: Run, second: Run) -> list[str]:
    """Markdown lines."""
    found = match(first.s, second.s)
    shared = predictability(first.s, second.s), predictability(second.s, first.s)
    partners = second.order.prototypes[:, found.partners]
    alike = np.abs(found.correlation) >= 0.7
    order = agreement(first.order.labels, second.order.labels)
    lines = matching_lines(found, (f"seed {first.seed}", f"seed {second.seed}"), shared)
    lines += [
        "",
        f"Order of emergence, Spearman between the runs: {order:.2f} of labels, "
        f"{agreement(first.order.prototypes[:, alike], partners[:, alike]):.2f} of the "
        f"{alike.sum()} prototypes that are recovered at |r| >= 0.7. Over images (halves) within a run: "
        f"{agreement(first.order.labels[::2], first.order.labels[1::2]):.2f} and "
        f"{agreement(second.order.labels[::2], second.order.labels[1::2]):.2f} of labels.",
        "",
        "| label | AUROC of the best prototype, seed 0 | seed 1 |",
        "|---|---|---|",
    ]
    for name, a, b in zip(first.order.names, first.best_auroc, second.best_auroc, strict=True):
        lines.append(f"| {name} | {a:.2f} | {b:.2f} |")
    return lines
