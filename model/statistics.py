"""What the activations of each prototype look like over the training data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

QUANTILE_LEVELS: Float64 = np.arange(1, 100) / 100.0
"""0.01, 0.02 … 0.99."""


LEAST_SPREAD = 1e-4
"""Of an activation over the training data: what hardly varies is not counted in smaller units than this."""


class StatisticsError(ValueError):
    """Statistics do not describe the prototypes of one model."""


@dataclass(frozen=True)
class ActivationStatistics:
    """Per-prototype statistics of s, and how prototypes vary together.

    mean, std, minimum, maximum: (m,); quantiles: (m, 99) at QUANTILE_LEVELS;
    correlation: (m, m), of the normal scores (ranks mapped through the normal quantile function),
    which is what a Gaussian copula needs; 0 for an activation that never varies.
    """

    mean: Float64
    std: Float64
    minimum: Float64
    maximum: Float64
    quantiles: Float64
    correlation: Float64

    def __post_init__(self) -> None:
        m = len(self.mean)
        expected = {
            "mean": (m,),
            "std": (m,),
            "minimum": (m,),
            "maximum": (m,),
            "quantiles": (m, len(QUANTILE_LEVELS)),
            "correlation": (m, m),
        }
        for name, shape in expected.items():
            values = getattr(self, name)
            if values.shape != shape:
                raise StatisticsError(f"statistics {name} has shape {values.shape}, not {shape}")
            if not np.isfinite(values).all():
                raise StatisticsError(f"statistics {name} has values that are not finite")
        if (np.diff(self.quantiles, axis=1) < 0).any():
            raise StatisticsError("statistics quantiles do not ascend")

    @property
    def num_prototypes(self) -> int:
        return len(self.mean)

    @property
    def spread(self) -> Float64:
        """The unit that changes of each prototype are counted in, (m,): `std`, LEAST_SPREAD at least."""
        return np.maximum(self.std, LEAST_SPREAD)

    @property
    def low(self) -> Float64:
        """The 0.01 quantile of each prototype, (m,): the least that edits reach without extrapolation."""
        return self.quantiles[:, 0]

    @property
    def high(self) -> Float64:
        """The 0.99 quantile of each prototype, (m,)."""
        return self.quantiles[:, -1]

    @classmethod
    def measure(cls, activations: Float32) -> ActivationStatistics:
        """Statistics of s over N images, (N, m), N >= 2."""
        s = activations.astype(np.float64)
        ranks = np.stack([_mean_ranks(column) for column in s.T], axis=1)
        scores = normal_quantile((ranks + 0.5) / len(s))
        with np.errstate(divide="ignore", invalid="ignore"):
            correlation = np.atleast_2d(np.corrcoef(scores, rowvar=False))
        return cls(
            mean=s.mean(axis=0),
            std=s.std(axis=0),
            minimum=s.min(axis=0),
            maximum=s.max(axis=0),
            quantiles=np.quantile(s, QUANTILE_LEVELS, axis=0).T,
            correlation=np.nan_to_num(correlation),
        )

    def resample(self, rng: np.random.Generator, count: int) -> Float32:
        """New activation vectors (count, m) with these marginals and correlations (a Gaussian copula)."""
        eigenvalues, vectors = np.linalg.eigh(self.correlation)
        mixing = vectors * np.sqrt(np.clip(eigenvalues, 0.0, None))  # (m, m)
        scores = rng.standard_normal((count, self.num_prototypes)) @ mixing.T
        levels = np.concatenate([[0.0], QUANTILE_LEVELS, [1.0]])
        values = self._score_values()
        uniform = normal_cdf(scores)
        columns = [np.interp(uniform[:, j], levels, values[j]) for j in range(self.num_prototypes)]
        return np.stack(columns, axis=1).astype(np.float32)

    def to_scores(self, activations: Float32) -> Float32:
        """s (N, m) to normal scores (N, m): each column as a standard normal variable of the same ranks.

        Interpolated between the minimum, the 99 quantiles and the maximum, and no further than those. This
        is the space in which the latent prior works: a mean of 0 and a deviation of 1 as in Preechakul et
        al. 2022 (Diffusion Autoencoders), and no skew besides.
        """
        values = self._score_values()
        columns = [np.interp(activations[:, j], values[j], _SCORES) for j in range(self.num_prototypes)]
        return np.stack(columns, axis=1).astype(np.float32)

    def from_scores(self, scores: Float32) -> Float32:
        """The inverse of `to_scores`: normal scores (N, m) to s (N, m) between minimum and maximum."""
        values = self._score_values()
        columns = [np.interp(scores[:, j], _SCORES, values[j]) for j in range(self.num_prototypes)]
        return np.stack(columns, axis=1).astype(np.float32)

    def _score_values(self) -> Float64:
        return np.column_stack([self.minimum, self.quantiles, self.maximum])  # (m, 101)

    def standardised(self, activations: Float32) -> Float64:
        """s (..., m) less its mean, in units of `spread`."""
        return np.asarray((activations - self.mean) / self.spread)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, numbers rounded to 6 significant digits."""
        return {
            name: rounded(getattr(self, name))
            for name in ("mean", "std", "minimum", "maximum", "quantiles", "correlation")
        }

    @classmethod
    def from_dict(cls, values: Any) -> ActivationStatistics:
        """The inverse of `to_dict`. Raises StatisticsError."""
        try:
            arrays = {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}
            return cls(**arrays)
        except (TypeError, AttributeError, ValueError) as error:
            raise StatisticsError(f"statistics are malformed: {error}") from error


def _mean_ranks(values: Float64) -> Float64:
    """Ranks 0 … N - 1 of values (N,); equal ones share their mean, or their order would look like a cause."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    return np.asarray((last - (counts - 1) / 2.0)[place])


def normal_cdf(z: Float64) -> Float64:
    """Φ(z), the distribution function of the standard normal, of an array of any shape."""
    return np.asarray(0.5 * (1.0 + np.vectorize(math.erf, otypes=[float])(z / math.sqrt(2.0))))


def normal_quantile(u: Float64) -> Float64:
    """Φ⁻¹(u) for 0 < u < 1, of any shape: `normal_cdf` inverted on a fine grid, |error| < 1e-4."""
    grid = np.linspace(-6.0, 6.0, 24_001)
    return np.interp(u, normal_cdf(grid), grid)


TAIL_SCORE = 4.1
"""The normal score of the minimum and the maximum: the extreme of about 60,000 normal draws."""

_SCORES: Float64 = np.concatenate([[-TAIL_SCORE], normal_quantile(QUANTILE_LEVELS), [TAIL_SCORE]])


def rounded(values: Float64, digits: int = 6) -> list[Any]:
    """An array as (nested) lists for JSON, numbers rounded to so many significant digits."""
    short = np.array([float(f"{value:.{digits}g}") for value in values.ravel()])
    plain: list[Any] = short.reshape(values.shape).tolist()
    return plain
