"""What else changes when one thing is changed: effects of interventions, and which of them are no chance.

Each of n samples is seen twice under an intervention, before and after, all else the same (x_T too). Of J
interventions and K outcomes this gives differences (J, n, K), in standard deviations of the outcomes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.statistics import normal_cdf

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

CONFIDENCE = 0.95
"""How often an interval holds the true mean."""
FAMILYWISE_ERROR = 0.05
"""How often a family of tests without any true effect establishes one at all."""
LEAST_SAMPLES = 6
"""With fewer samples no effect can be established: of the 2^n signs two are as extreme as those observed."""
NUM_RESAMPLES = 4000
NUM_SIGNS = 9999


@dataclass(frozen=True, eq=False)
class Estimates:
    """Values and their confidence intervals [low, high], each of the same shape; NaN where there is none."""

    value: Float64
    low: Float64
    high: Float64


@dataclass(frozen=True, eq=False)
class Effects:
    """Of J interventions on K outcomes, all (J, K).

    effect: the mean difference; beyond: what of it nobody asked for, the effect itself where nothing was
    asked; leakage: beyond over the intervention's own effect, NaN where that may be none; p: of nothing
    beyond, adjusted for the whole family, NaN where it was not tested.
    """

    effect: Estimates
    beyond: Estimates
    leakage: Estimates
    p: Float64

    @property
    def is_established(self) -> Bools:
        """Which effects are no chance: one in 20 families without any effect has one here."""
        return np.nan_to_num(self.p, nan=1.0) <= FAMILYWISE_ERROR

    @property
    def least(self) -> Float64:
        """The least |beyond| that the interval leaves, 0 where it holds 0."""
        return np.maximum(0.0, np.maximum(self.beyond.low, -self.beyond.high))

    def ranked(self) -> list[tuple[int, int]]:
        """Tested (intervention, outcome): established ones first, then by the least that it can be.

        Those that do not go beyond what was asked are last, the largest effect first.
        """
        is_established, least, effect = self.is_established, self.least, np.abs(self.effect.value)
        beyond = np.abs(self.beyond.value).round(9)  # what is asked is taken away but for rounding errors
        tested = [(int(j), int(k)) for j, k in np.argwhere(~np.isnan(self.p))]
        return sorted(tested, key=lambda at: (not is_established[at], -least[at], -beyond[at], -effect[at]))


def measure_effects(
    differences: Float64,
    own: Float64,
    is_tested: Bools,
    *,
    seed: int,
    asked: Float64 | None = None,
    proceed: Callable[[], None] = lambda: None,
) -> Effects:
    """Effects from differences (J, n, K), after less before.

    own: (J, n), the differences of what each intervention is meant to change; is_tested: (J, K), the family
    of those that should be none; proceed: called now and then, as this may take seconds: what it raises ends
    the work. Samples are resampled whole, so that what belongs together stays so.

    asked: (J, n, K), the differences that an intervention asks for itself, None for none. A model follows
    what it is asked by more or less, so that anything from none to all of it is no coupling: beyond is how
    far the mean is outside of that, and what it is tested for.
    """
    num_interventions, n, num_outcomes = differences.shape
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n, np.full(n, 1.0 / n), size=NUM_RESAMPLES) / n  # (resamples, n)
    levels = _interval_levels(n)
    effect, beyond, leakage = (
        Estimates(*np.full((3, num_interventions, num_outcomes), np.nan)) for _ in range(3)
    )
    unasked = differences if asked is None else _unasked(differences, asked)
    for j in range(num_interventions):
        proceed()
        means, own_means = weights @ unasked[j], weights @ own[j]  # (resamples, K), (resamples,)
        beyond.value[j] = unasked[j].mean(axis=0)
        beyond.low[j], beyond.high[j] = np.quantile(means, levels, axis=0)
        effect.value[j], effect.low[j], effect.high[j] = beyond.value[j], beyond.low[j], beyond.high[j]
        if asked is not None and asked[j].any():
            effect.value[j] = differences[j].mean(axis=0)
            effect.low[j], effect.high[j] = np.quantile(weights @ differences[j], levels, axis=0)
        own_low, own_high = np.quantile(own_means, levels)
        if own_low > 0.0 or own_high < 0.0:
            with np.errstate(divide="ignore", invalid="ignore"):  # a rare resample may have no own effect
                ratios = np.nan_to_num(means / own_means[:, None])
            leakage.value[j] = beyond.value[j] / own[j].mean()
            leakage.low[j], leakage.high[j] = np.quantile(ratios, levels, axis=0)
    p = np.full((num_interventions, num_outcomes), np.nan)
    p[is_tested] = familywise_p(np.moveaxis(unasked, 1, 0)[:, is_tested], rng, proceed)
    return Effects(effect, beyond, leakage, p)


def _unasked(differences: Float64, asked: Float64) -> Float64:
    """Differences (J, n, K) less the share of what was asked, none to all, that leaves the least of a mean.

    The null hypothesis is a whole interval, 0 to the mean asked, and each mean is held against the end that
    it is beyond. A mean within it becomes 0 and its p 1: the test errs on the side of no coupling.
    """
    mean, mean_asked = (values.mean(axis=1, keepdims=True) for values in (differences, asked))  # (J, 1, K)
    share = np.divide(mean, mean_asked, out=np.zeros_like(mean), where=mean_asked != 0.0).clip(0.0, 1.0)
    return np.asarray(differences - share * asked)


def familywise_p(
    differences: Float64, rng: np.random.Generator, proceed: Callable[[], None] = lambda: None
) -> Float64:
    """Adjusted p (N,) of N hypotheses "no effect", from differences (n, N).

    Without an effect the two pictures of a sample could as well be exchanged, so that its differences all
    change their sign: a sign-flip test, exact whatever their distribution. The largest statistic of those
    flipped is what each is held against (max-T), stepping down from the largest: Westfall and Young 1993,
    algorithm 2.8. This keeps the chance of any false one below the level, however dependent they are. The
    statistic is |Σ d| / sqrt(n Σ d²), which orders samples as |t| does and needs no division by 0.
    """
    n, num_hypotheses = differences.shape
    norms = np.sqrt(n * (differences**2).sum(axis=0))
    scaled = np.divide(differences, norms, out=np.zeros_like(differences), where=norms > 0.0)
    observed = np.abs(scaled.sum(axis=0))
    order = np.argsort(observed)  # the smallest first
    scaled, observed = scaled[:, order], observed[order]
    num_as_large = np.ones(num_hypotheses)  # the signs as they are
    chunk = max(1, 2**22 // max(1, num_hypotheses))
    for start in range(0, NUM_SIGNS, chunk):
        proceed()
        signs = rng.choice((-1.0, 1.0), size=(min(chunk, NUM_SIGNS - start), n))
        largest = np.maximum.accumulate(np.abs(signs @ scaled), axis=1)  # of those that are no larger
        num_as_large += (largest >= observed - 1e-9).sum(axis=0)
    p = np.empty(num_hypotheses)
    # Who has a larger statistic has no larger p.
    p[order] = np.maximum.accumulate((num_as_large / (NUM_SIGNS + 1))[::-1])[::-1]
    return p


def _interval_levels(n: int) -> Float64:
    """The quantiles of bootstrap means of n samples that make an interval of CONFIDENCE.

    The plain percentiles are too narrow for small n: they lack the factor n / (n - 1) and Student's t.
    Hesterberg 2015 (What teachers should know about the bootstrap), section 5: expanded percentiles.
    """
    t = student_quantile(0.5 + CONFIDENCE / 2.0, n - 1)
    low = float(normal_cdf(np.array(-t * np.sqrt(n / (n - 1.0)))))
    return np.array([low, 1.0 - low])


def student_quantile(level: float, degrees_of_freedom: int) -> float:
    """The quantile .5 … .9999 of Student's t, by adding up its density: |error| < 1e-3 from 3 degrees on."""
    t = np.linspace(0.0, 200.0, 400_001)
    density = (1.0 + t**2 / degrees_of_freedom) ** (-(degrees_of_freedom + 1) / 2.0)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2.0)])
    return float(np.interp(2.0 * level - 1.0, area / area[-1], t))
