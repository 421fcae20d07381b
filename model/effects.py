"""What driving one prototype does to all of them, as it was measured on generated images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.statistics import ActivationStatistics, rounded

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


class EffectsError(ValueError):
    """Measured effects do not describe the prototypes of one model."""


@dataclass(frozen=True, eq=False)
class MeasuredEffects:
    """Of each of m prototypes on each, over `num_samples` samples that were generated twice.

    In both pictures of a sample x_T and s are the same, but for s_j: its 0.01 and its 0.99 quantile. mean and
    spread, (m, m): of the change of the re-encoded s_k for each unit that s_j was driven, mean and standard
    deviation over the samples, at [j, k]; 0 where the quantiles are the same. Raises EffectsError.
    """

    mean: Float64
    spread: Float64
    num_samples: int

    def __post_init__(self) -> None:
        m = len(self.mean)
        for name in ("mean", "spread"):
            values = getattr(self, name)
            if values.shape != (m, m):
                raise EffectsError(f"effects {name} has shape {values.shape}, not {(m, m)}")
            if not np.isfinite(values).all():
                raise EffectsError(f"effects {name} has values that are not finite")
        if (self.spread < 0.0).any():
            raise EffectsError("effects spread has values below 0")
        if self.num_samples < 2:
            raise EffectsError(f"effects need at least 2 samples, not {self.num_samples}")

    @property
    def num_prototypes(self) -> int:
        return len(self.mean)

    @property
    def standard_error(self) -> Float64:
        """Of `mean`, (m, m)."""
        return np.asarray(self.spread / np.sqrt(self.num_samples))

    @classmethod
    def of(cls, low: Float32, high: Float32, statistics: ActivationStatistics) -> MeasuredEffects:
        """From re-encoded activations (m, n, m): of n samples in which prototype j was low, and high."""
        driven = (statistics.high - statistics.low)[:, None, None]
        change = high.astype(np.float64) - low
        per_unit = np.divide(change, driven, out=np.zeros_like(change), where=driven > 0.0)
        return cls(per_unit.mean(axis=1), per_unit.std(axis=1, ddof=1), per_unit.shape[1])

    def over_range(self, statistics: ActivationStatistics) -> tuple[Float64, Float64]:
        """The mean effect of each prototype's whole way from low to high, and its standard error.

        (m, m) each, in standard deviations of the affected prototype over the training data.
        """
        scale = (statistics.high - statistics.low)[:, None] / statistics.spread
        return np.asarray(self.mean * scale), np.asarray(self.standard_error * scale)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, numbers of 4 significant digits."""
        return {
            "mean": rounded(self.mean, 4),
            "spread": rounded(self.spread, 4),
            "num_samples": self.num_samples,
        }

    @classmethod
    def from_dict(cls, values: Any) -> MeasuredEffects:
        """The inverse of `to_dict`. Raises EffectsError."""
        try:
            num_samples = values["num_samples"]
            if type(num_samples) is not int:
                raise TypeError(f"num_samples must be int, not {num_samples!r}")
            mean, spread = (np.asarray(values[name], dtype=np.float64) for name in ("mean", "spread"))
            return cls(mean, spread, num_samples)
        except EffectsError:
            raise
        except KeyError as error:
            raise EffectsError(f"effects lack {error}") from error
        except (TypeError, ValueError) as error:
            raise EffectsError(f"effects are malformed: {error}") from error
