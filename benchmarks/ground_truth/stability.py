"""Stability: does another training run find the same prototypes, and do they stand a little noise?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from benchmarks.ground_truth.subject import Subject
from model.transforms import Pixels

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

SEED = 0
NOISE_LEVELS = (1.0, 2.0, 4.0, 8.0)
"""Standard deviations, in grey levels of 0 to 255."""
RECOVERED = (0.5, 0.7, 0.9)


@dataclass(frozen=True, eq=False)
class Match:
    """The one-to-one pairing of two runs' prototypes with the largest sum of |correlation|.

    partners: (m,), the second run's prototype for each of the first; correlation: (m,), of their activations
    over the same images, signed.
    """

    partners: Int64
    correlation: Float64

    def recovered(self, least: float) -> float:
        """Share of prototypes whose partner correlates with them at least so much, in either direction."""
        return float((np.abs(self.correlation) >= least).mean())


def match(first: Float32, second: Float32) -> Match:
    """From the activations (N, m) and (N, m') of two models for the same N images, m <= m'."""
    m = first.shape[1]
    correlation = np.asarray(np.corrcoef(first, second, rowvar=False))[:m, m:]
    correlation = np.nan_to_num(correlation)  # of one that never varies
    rows, partners = linear_sum_assignment(-np.abs(correlation))
    return Match(np.asarray(partners), correlation[rows, partners])


def predictability(first: Float32, second: Float32) -> float:
    """Mean share of the variance of the first model's activations (N, m) that is linear in the second's.

    Fitted to one half of the images, measured on the other: 1 where both span the same, however each cuts it.
    """
    half = len(first) // 2
    design = np.concatenate([second, np.ones((len(second), 1), second.dtype)], axis=1)
    weights = np.linalg.lstsq(design[:half], first[:half], rcond=None)[0]
    residual = ((first[half:] - design[half:] @ weights) ** 2).mean(axis=0)
    return float(np.clip(1.0 - residual / np.maximum(first[half:].var(axis=0), 1e-12), 0.0, 1.0).mean())


def noisy(pixels: Pixels, level: float) -> Pixels:
    """pixels (N, C, H, W) with normal noise of standard deviation `level`, rounded and clipped."""
    rng = np.random.default_rng(SEED)
    moved = pixels + level * rng.standard_normal(pixels.shape, dtype=np.float32)
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


def matching_lines(found: Match, names: tuple[str, str], shared: tuple[float, float]) -> list[str]:
    """Markdown lines on two runs; shared: `predictability` both ways."""
    shares = ", ".join(f"{found.recovered(least):.2f} at |r| >= {least}" for least in RECOVERED)
    return [
        f"Prototypes of {names[0]} recovered by {names[1]}, paired one to one by the correlation of their "
        f"activations over the test split: {shares}; mean |r| {np.abs(found.correlation).mean():.2f}. "
        f"Linear in all prototypes of the other run: {shared[0]:.2f} of the variance of the first's, "
        f"{shared[1]:.2f} of the second's."
    ]


@dataclass(frozen=True, eq=False)
class Change:
    """What noise of a level does to activations: mean |change| (m,) in standard deviations over the training
    data, and their correlation with those without noise, mean over prototypes."""

    level: float
    change: Float64
    correlation: float


def measure(subject: Subject, images: Pixels) -> list[Change]:
    """Of images (N, C, H, W), at each of NOISE_LEVELS."""
    plain, _ = subject.encode(images)
    spread, m = subject.statistics.spread, plain.shape[1]
    changes = []
    for level in NOISE_LEVELS:
        moved, _ = subject.encode(noisy(images, level))
        correlation = np.corrcoef(plain, moved, rowvar=False)[:m, m:].diagonal().mean()
        changes.append(Change(level, (np.abs(moved - plain) / spread).mean(axis=0), float(correlation)))
    return changes


def noise_lines(changes: list[Change]) -> list[str]:
    """Markdown lines."""
    lines = [
        "Noise is normal, in grey levels. Change: of an activation, absolute, in standard deviations over "
        "the training data; correlation: of activations with and without noise, mean over prototypes.",
        "",
        "| noise | change, mean | change, worst prototype | correlation |",
        "|---|---|---|---|",
    ]
    for some in changes:
        mean, worst = some.change.mean(), some.change.max()
        lines.append(f"| {some.level:g} | {mean:.3f} | {worst:.3f} | {some.correlation:.3f} |")
    return lines
