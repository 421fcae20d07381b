"""What labels say of the prototypes: which attributes each predicts, and linear probes of all on s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from model.statistics import LEAST_SPREAD, ActivationStatistics, rounded

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


ROUNDS = 100
"""How often, at most, what `moved` falls short of is asked again."""
NEAR = 1e-3
"""Standard deviations of log-odds that are as good as there."""
SAME = 1e-8
"""Attributes of which a combination has less than this share of the largest variance say the same."""


class AttributesError(ValueError):
    """Attributes do not describe the prototypes of one model."""


@dataclass(frozen=True)
class PredictedAttribute:
    """How surely one prototype's activation tells an attribute: `auroc` .5 … 1, `sign` -1 where it is low
    in images that have the attribute."""

    name: str
    auroc: float
    sign: Literal[1, -1]


@dataclass(frozen=True, eq=False)
class Attributes:
    """K attributes of a data set, or its classes one against the rest, measured on test images.

    auroc: (m, K), of each single activation, below .5 where it is low in images that have the attribute;
    probe_weights: (K, m), probe_biases: (K,), of logistic regressions on standardised activations
    (`ActivationStatistics.standardised`), fitted to training images; probe_auroc: (K,), of these;
    probe_low, probe_high: (K,), the 0.01 and 0.99 quantile of their log-odds over the training images.
    Raises AttributesError where that is not so.
    """

    names: tuple[str, ...]
    auroc: Float64
    probe_weights: Float64
    probe_biases: Float64
    probe_auroc: Float64
    probe_low: Float64
    probe_high: Float64

    def __post_init__(self) -> None:
        count = len(self.names)
        if not count or len(set(self.names)) < count:
            raise AttributesError(f"attributes need distinct names, at least one, not {list(self.names)}")
        m = len(self.auroc)
        expected = {
            "auroc": (m, count),
            "probe_weights": (count, m),
            "probe_biases": (count,),
            "probe_auroc": (count,),
            "probe_low": (count,),
            "probe_high": (count,),
        }
        for name, shape in expected.items():
            values = getattr(self, name)
            if values.shape != shape:
                raise AttributesError(f"attributes {name} has shape {values.shape}, not {shape}")
            if not np.isfinite(values).all():
                raise AttributesError(f"attributes {name} has values that are not finite")
        for name in ("auroc", "probe_auroc"):
            values = getattr(self, name)
            if ((values < 0.0) | (values > 1.0)).any():
                raise AttributesError(f"attributes {name} has values outside 0 … 1")
        if (self.probe_low > self.probe_high).any():
            raise AttributesError("attributes probe_low is above probe_high")

    @property
    def num_prototypes(self) -> int:
        return len(self.auroc)

    def best(self, j: int, count: int) -> list[PredictedAttribute]:
        """The `count` attributes that prototype j predicts best, of either sign, best first."""
        either_sign = np.maximum(self.auroc[j], 1.0 - self.auroc[j])  # (K,)
        return [
            PredictedAttribute(self.names[k], float(either_sign[k]), 1 if self.auroc[j, k] >= 0.5 else -1)
            for k in np.argsort(-either_sign, kind="stable")[:count]
        ]

    def probe_logits(self, activations: Float32, statistics: ActivationStatistics) -> Float64:
        """Log-odds (..., K) that images with s (..., m) have each attribute, by the probes."""
        return np.asarray(statistics.standardised(activations) @ self.probe_weights.T + self.probe_biases)

    def readout(self, k: int, statistics: ActivationStatistics) -> tuple[Float64, float]:
        """(weights (m,), offset) with which s @ weights + offset are the log-odds of attribute k."""
        weights = self.probe_weights[k] / statistics.spread
        return weights, float(self.probe_biases[k] - statistics.mean @ weights)

    def directions(
        self, moved: Sequence[int], statistics: ActivationStatistics, held: Sequence[int] = ()
    ) -> Float64:
        """The likeliest changes of s, (m, n): one for each of the attributes `moved`, then of `held`.

        That of a moved one raises its log-odds by 1, that of a held one by 1/2 at most; either leaves the
        other `moved` ones where they are, and moves the other `held` ones less than if nothing held them. Of
        all changes d with w_k·d = t_k for `moved` k it is the one with the least

            d'Σ⁻¹d + Σ_h (w_h·d - t_h)² / σ_h²    over `held` h,

        where w are the probes' weights, Σ is the covariance of s over the training data, and σ_h the
        deviation of the log-odds of h there: d = ΣW'(WΣW' + P)⁻¹t, with P = σ_h² for held ones and else 0.
        Activations that vary together are moved together, as a change of w alone would not. For one
        attribute, and classes of one covariance, d is the difference of their means (Fisher's discriminant);
        that takes along what the probes confuse with the attribute, and what is held is not. All 0 where the
        probe says nothing; moved ones that say the same share one change.
        """
        chosen = [*moved, *held]
        spread = self.logit_spread(statistics)[chosen]
        weights = self.probe_weights[chosen] / spread[:, None]  # of log-odds in their deviations
        together = statistics.correlation @ weights.T  # (m, n)
        yields = np.diag([0.0] * len(moved) + [1.0] * len(held))
        changes = together @ np.linalg.pinv(weights @ together + yields, rcond=SAME, hermitian=True)
        return np.asarray(changes * statistics.spread[:, None] / spread)

    def moved(
        self,
        s: Float32,
        k: int,
        value: Float64,
        statistics: ActivationStatistics,
        within: tuple[Float32, Float32] | None = None,
        held: Sequence[int] = (),
    ) -> Float32:
        """s (..., m) moved along `directions` until the log-odds of attribute k are `value` (...).

        within: bounds (m,) or (..., m) of activations, by default their 0.01 and 0.99 quantiles; what is
        outside of them stays where it is at most. held: attributes whose log-odds stay what they are. What is
        short of either, as entries are at their bounds and `directions` hold softly, is asked again, until it
        is there, or ROUNDS times; where the bounds do not admit both, both fall short.
        """
        chosen = [k, *held]
        directions = self.directions([k], statistics, held)  # (m, n)
        near = NEAR * self.logit_spread(statistics)[chosen]
        low, high = (statistics.low, statistics.high) if within is None else within
        low, high = np.minimum(low, s), np.maximum(high, s)
        weights = (self.probe_weights[chosen] / statistics.spread).T  # (m, n)
        wanted = np.zeros((*s.shape[:-1], len(chosen)))  # of the change
        wanted[..., 0] = value - self.probe_logits(s, statistics)[..., k]
        moved = s.astype(np.float64)
        for _ in range(ROUNDS):
            shortfall = wanted - (moved - s) @ weights
            if (np.abs(shortfall) <= near).all():
                break
            moved = np.clip(moved + shortfall @ directions.T, low, high)
        return moved.astype(np.float32)

    def logit_spread(self, statistics: ActivationStatistics) -> Float64:
        """Standard deviation (K,) of the probes' log-odds over the training data, LEAST_SPREAD at least.

        As if activations correlated as their normal scores do: that is the correlation that is kept.
        """
        variance = ((self.probe_weights @ statistics.correlation) * self.probe_weights).sum(axis=1)
        return np.asarray(np.sqrt(variance.clip(LEAST_SPREAD**2)))

    def logit_correlation(self, statistics: ActivationStatistics) -> Float64:
        """Correlation (K, m) of the probes' log-odds with each activation, over the training data."""
        covariance = self.probe_weights @ statistics.correlation
        return np.asarray(covariance / self.logit_spread(statistics)[:, None])

    def logit_correlations(self, statistics: ActivationStatistics) -> Float64:
        """Correlation (K, K) of the probes' log-odds with one another, over the training data."""
        spread = self.logit_spread(statistics)
        covariance = self.probe_weights @ statistics.correlation @ self.probe_weights.T
        return np.asarray(covariance / np.outer(spread, spread))

    def to_dict(self) -> dict[str, Any]:
        """JSON values: AUROCs of 4, weights of 6 significant digits."""
        return {
            "names": list(self.names),
            "auroc": rounded(self.auroc, 4),
            "probe_weights": rounded(self.probe_weights),
            "probe_biases": rounded(self.probe_biases),
            "probe_auroc": rounded(self.probe_auroc, 4),
            "probe_low": rounded(self.probe_low),
            "probe_high": rounded(self.probe_high),
        }

    @classmethod
    def from_dict(cls, values: Any) -> Attributes:
        """The inverse of `to_dict`. Raises AttributesError."""
        try:
            names = values["names"]
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise TypeError(f"names must be a list of strings, not {names!r}")
            arrays = {
                name: np.asarray(value, dtype=np.float64) for name, value in values.items() if name != "names"
            }
            return cls(names=tuple(names), **arrays)
        except AttributesError:
            raise
        except KeyError as error:
            raise AttributesError(f"attributes lack {error}") from error
        except (TypeError, AttributeError, ValueError) as error:
            raise AttributesError(f"attributes are malformed: {error}") from error
