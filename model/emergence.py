"""When a prototype appears while an image is denoised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

LEAST_CHANGE = 0.1
"""An activation (0 … 9.21) that changes by less from the first step to the last does not emerge."""
NEVER = -1


def emergence_steps(activations: Float32) -> Int64:
    """For each prototype the first step from which it stays beyond half of its final change.

    activations: (..., k, m), of x̂₀ after each of k steps. The change counts from the first x̂₀, which is the
    mean image that the network sees in pure noise, to the last; a prototype that fades emerges as one that
    grows does. Returns (..., m) with indices 0 … k - 1, or NEVER where the activation hardly changes.
    Weng et al. 2026 show when prototypes appear; the half of the change is our measure of it.
    """
    first, last = activations[..., :1, :], activations[..., -1:, :]
    change = last - first
    with np.errstate(divide="ignore", invalid="ignore"):
        is_beyond = (activations - first) / change >= 0.5  # (..., k, m)
    # From the end on: a step counts if it and all later ones are beyond half.
    stays = np.flip(np.logical_and.accumulate(np.flip(is_beyond, axis=-2), axis=-2), axis=-2)
    steps = np.asarray(stays.argmax(axis=-2), dtype=np.int64)
    return np.where(np.abs(change[..., 0, :]) < LEAST_CHANGE, NEVER, steps)


def emergence_timesteps(activations: Float32, timesteps: Int64) -> Int64:
    """`emergence_steps` as the timesteps (k,) at which those steps were taken; NEVER stays."""
    steps = emergence_steps(activations)
    return np.where(steps == NEVER, NEVER, timesteps[np.maximum(steps, 0)])


@dataclass(frozen=True, eq=False)
class Emergence:
    """Of m prototypes over several images.

    median: (m,) timesteps, NaN for one that emerges nowhere; low, high: (m,) the quartiles, likewise; count:
    (m,) images in which it emerges. Noise has high timesteps: `high` is the early quartile.
    """

    median: Float64
    low: Float64
    high: Float64
    count: Int64

    @property
    def spread(self) -> Float64:
        """(m,) timesteps between the quartiles."""
        return self.high - self.low

    @classmethod
    def over_images(cls, emergence: Int64) -> Emergence:
        """From the `emergence_timesteps` (n, m) of n images."""
        emerged = emergence != NEVER
        count = emerged.sum(axis=0)
        quartiles = np.full((3, len(count)), np.nan)
        for j in np.flatnonzero(count):
            quartiles[:, j] = np.quantile(emergence[emerged[:, j], j], [0.25, 0.5, 0.75])
        low, median, high = quartiles
        return cls(median, low, high, count)
