"""Which s to drive so that an edit changes what it names and leaves the rest: static decoupling.

An edit of s_j moves other activations along, by effects that were measured (`model.effects`). To first order
the re-encoded change a of s is linear in the driven change d: a = A d with A[k, j] the effect of j on k, in
standard deviations of each. Control engineers decouple such a system by driving it through the inverse of A;
here the inverse is regularised, as effects are known with an error and differ between images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.effects import MeasuredEffects

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

PIVOTS_PER_ENTRY = 10
"""Far more than are ever needed; only rounding errors of a degenerate problem could ask for more."""
LEAST_RIDGE = 1e-9
"""Of the largest curvature, 1 at least. It makes the solution unique where a prototype has no effect at all,
which is then driven as asked, and keeps effects of very different sizes from drowning in rounding errors."""
TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Decoupling:
    """Drives `edited` and `held` entries (indices) so that the former change as asked, the latter not at all.

    d minimises, in standard deviations `spread` (m,),

        Σ_k ((A d)_k - t_k)² + Σ_j λ_j (d_j - t_j)²,    λ_j = Σ_k v_jk

    where t is the asked change (0 for held ones) and v_jk the variance of the effect of j on k over samples.
    For an image whose own effects differ from the mean ones as the samples' did, the first sum is larger in
    expectation by Σ_j λ_j d_j²: a ridge (Hoerl and Kennard 1970) whose strength is measured. Of held entries
    the second sum is just that; of edited ones it draws d_j to the edit as asked instead of to 0, so that
    where effects are unknown it is driven as it is without decoupling. Where they are the same in all
    samples, t is met exactly as far as bounds allow.
    """

    effects: MeasuredEffects
    spread: Float64
    edited: Sequence[int]
    held: Sequence[int]

    def driven(self, before: Float32, asked: Float32, *, largest: float) -> Float32:
        """What to drive for s = `before` to become `asked`, within 0 … `largest`; each (..., m)."""
        entries = [*self.edited, *self.held]
        unit = self.spread[entries]
        at = np.ix_(entries, entries)
        scale = unit[:, None] / unit  # [j, k]
        effects, variances = (self.effects.mean[at] * scale).T, (self.effects.spread[at] * scale) ** 2
        squares = effects.T @ effects  # (f, f)
        ridge = variances.sum(axis=1)  # (f,)
        ridge = ridge + LEAST_RIDGE * max(1.0, float((squares.diagonal() + ridge).max()))
        hessian = squares + np.diag(ridge)
        start = before[..., entries].astype(np.float64).reshape(-1, len(entries))  # (n, f)
        target = (asked[..., entries].reshape(start.shape) - start) / unit
        target[:, len(self.edited) :] = 0.0
        slope = target @ effects + target * ridge  # (n, f)
        lowest, highest = np.minimum(-start / unit, 0.0), np.maximum((largest - start) / unit, 0.0)
        change = np.linalg.solve(hessian, slope.T).T
        leaves = ((change < lowest) | (change > highest)).any(axis=1)
        for i in np.flatnonzero(leaves):
            change[i] = box_quadratic(hessian, slope[i], lowest[i], highest[i])
        driven = asked.copy()
        driven[..., entries] = (start + change * unit).reshape(*asked.shape[:-1], len(entries))
        return driven.clip(0.0, largest).astype(np.float32)


def box_quadratic(hessian: Float64, slope: Float64, low: Float64, high: Float64) -> Float64:
    """The x (n,) of low <= x <= high that minimises x'Hx / 2 - slope'x, for a positive definite H (n, n).

    Block principal pivoting (Júdice and Pires 1994): all entries that break a bound are fixed to it, and all
    fixed ones that the gradient pulls inside are freed, at once while that makes them fewer; if it does not
    for a while, only the last one, which ends for every positive definite H. Where rounding errors keep it
    from ending, the last x, brought within the bounds.
    """
    side = np.zeros(len(slope), np.int64)  # -1: at low, 0: free, 1: at high
    fewest, patience = len(slope) + 1, 3
    x = np.zeros(len(slope))
    for _ in range(PIVOTS_PER_ENTRY * (len(slope) + 1)):
        free = side == 0
        x = np.where(side < 0, low, high)
        x[free] = 0.0
        x[free] = np.linalg.solve(hessian[np.ix_(free, free)], (slope - hessian @ x)[free])
        gradient = hessian @ x - slope
        wanted = np.select(
            [free & (x < low - TOLERANCE), free & (x > high + TOLERANCE)], [-1, 1], default=side
        )
        inwards = ((side < 0) & (gradient < -TOLERANCE)) | ((side > 0) & (gradient > TOLERANCE))
        wanted[inwards] = 0
        wrong = np.flatnonzero(wanted != side)
        if not len(wrong):
            break
        if len(wrong) < fewest:
            fewest, patience = len(wrong), 3
        elif patience:
            patience -= 1
        else:
            wrong = wrong[-1:]
        side[wrong] = wanted[wrong]
    return x.clip(low, high)
