"""Whether prototypes are distinct from one another, vary over images, and lie near real patches."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model.config import ModelConfig
from model.encoder import SIMILARITY_EPSILON
from model.prototype_boxes import PrototypeBoxes
from training.losses import activation_correlation

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

DUPLICATE_CORRELATION = 0.95


def prototype_figures(
    config: ModelConfig, train_activations: Float32, train_cells: Int64, test_activations: Float32
) -> dict[str, Any]:
    """Figures of the prototypes from s (N, m) and best grid cells (N, m) of training images, and test s.

    A prototype is a duplicate if its activations over the test images correlate with another one's by more
    than 0.95, either sign, or if the training patch nearest to it is also another one's. Spread is the
    standard deviation of raw s over test images. Distance is that of the nearest training patch.
    """
    correlation = activation_correlation(torch.from_numpy(test_activations)).abs().fill_diagonal_(0.0)
    largest = correlation.amax(dim=1).numpy()  # (m,)
    best = train_activations.argmax(axis=0)  # (m,)
    m = np.arange(config.num_prototypes)
    boxes = PrototypeBoxes(config)
    patches = [
        (int(image), boxes.scales[j], boxes.box(j, int(cell)))
        for j, (image, cell) in enumerate(zip(best, train_cells[best, m], strict=True))
    ]
    times_chosen = Counter(patches)
    shares_patch = np.array([times_chosen[patch] > 1 for patch in patches])
    spreads = test_activations.std(axis=0)
    distances = distance_at(train_activations[best, m])
    return {
        "num_prototypes": config.num_prototypes,
        "num_distinct_exemplars": len(times_chosen),
        "num_duplicates": int(((largest > DUPLICATE_CORRELATION) | shares_patch).sum()),
        "largest_correlation_mean": float(largest.mean()),
        "raw_spread_mean": float(spreads.mean()),
        "raw_spread_min": float(spreads.min()),
        "nearest_train_patch_distance_mean": float(distances.mean()),
        "nearest_train_patch_distance_max": float(distances.max()),
    }


def distance_at(similarities: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The distance that has a given similarity: the inverse of `model.encoder.similarity`, at least 0.

    s = log((d + 1) / (d + δ)) gives d = (1 - δ eˢ) / (eˢ - 1); at most 1e7, where s vanishes.
    """
    s = similarities.astype(np.float64)
    distances = (1.0 - SIMILARITY_EPSILON * np.exp(s)) / np.maximum(np.expm1(s), 1e-7)
    return np.clip(distances, 0.0, 1e7)
