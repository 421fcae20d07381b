"""Total AUROC difference: do single prototypes stand for single attributes?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data import UNKNOWN
from training.evaluation.auroc import auroc_matrix

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int8 = npt.NDArray[np.int8]

CAPTURED_AUROC = 0.75
LARGEST_SHARED_ENTROPY = 0.2
CHANCE = 0.5


@dataclass(frozen=True)
class CapturedAttribute:
    """An attribute that one prototype tells by itself, and how well the next best one does."""

    name: str
    prototype: int
    auroc: float
    second_auroc: float


@dataclass(frozen=True)
class TotalAurocDifference:
    """The sum over `captured` of best minus second best AUROC, of `num_attributes` with both values."""

    captured: tuple[CapturedAttribute, ...]
    num_attributes: int

    @property
    def tad(self) -> float:
        return float(sum(attribute.auroc - attribute.second_auroc for attribute in self.captured))


def total_auroc_difference(
    activations: Float32, attributes: Int8, names: tuple[str, ...]
) -> TotalAurocDifference:
    """TAD (Yeats et al. 2022, NashAE) of s (N, m) for attributes (N, K) of 1, 0 or UNKNOWN.

    An attribute is captured if the best AUROC of a single prototype, of either sign, is at least 0.75, and
    knowing any other attribute takes away at most 0.2 of its entropy. TAD is the sum over captured
    attributes of the best minus the second best AUROC; a second one that is missing (m = 1) counts as
    chance. It grows with the number captured, which belongs beside it, as does m. Of two or three classes
    as one-vs-rest attributes none can be captured: each says too much of the others.
    """
    aurocs = auroc_matrix(activations, attributes)  # (K, m)
    either_sign = np.maximum(aurocs, 1.0 - aurocs)
    usable = ~np.isnan(either_sign).any(axis=1)
    shared = shared_entropy(attributes)
    captured = []
    for k in np.flatnonzero(usable):
        order = np.argsort(-either_sign[k], kind="stable")
        best = float(either_sign[k, order[0]])
        second = float(either_sign[k, order[1]]) if len(order) > 1 else CHANCE
        if best >= CAPTURED_AUROC and shared[k].max(initial=0.0) <= LARGEST_SHARED_ENTROPY:
            captured.append(CapturedAttribute(names[k], int(order[0]), best, second))
    return TotalAurocDifference(tuple(captured), int(usable.sum()))


def shared_entropy(attributes: Int8) -> Float64:
    """Mutual information of two attributes as a share of the entropy of the first, (K, K), diagonal 0.

    attributes (N, K) of 1, 0 or UNKNOWN; each pair is judged on the images where both are known. 0 where
    the first does not vary there.
    """
    has = (attributes == 1).astype(np.float64)  # (N, K)
    lacks = ((attributes != 1) & (attributes != UNKNOWN)).astype(np.float64)
    counts = np.array([[first.T @ second for second in (has, lacks)] for first in (has, lacks)])
    joint = counts / np.maximum(counts.sum(axis=(0, 1)), 1.0)  # (2, 2, K, K)
    first, second = joint.sum(axis=1), joint.sum(axis=0)  # (2, K, K) each
    entropy = _entropy(first)
    information = entropy + _entropy(second) - _entropy(joint.reshape(4, *joint.shape[2:]))
    shares = np.divide(information, entropy, out=np.zeros_like(entropy), where=entropy > 0.0)
    np.fill_diagonal(shares, 0.0)
    return np.clip(shares, 0.0, 1.0)


def one_vs_rest(labels: npt.NDArray[np.int64], num_classes: int) -> Int8:
    """Class labels (N,) as one attribute per class (N, num_classes)."""
    return np.asarray(labels[:, None] == np.arange(num_classes), dtype=np.int8)


def _entropy(probabilities: Float64) -> Float64:
    """Entropy in nats over the first axis, 0 log 0 = 0."""
    logarithms = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0.0)
    return np.asarray(-(probabilities * logarithms).sum(axis=0))
