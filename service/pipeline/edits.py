"""Changes to an activation vector, asked for by prototype."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from model.bundle import Bundle
from service.pipeline.errors import PipelineError, UnknownPrototypeError
from service.pipeline.measured import statistics_of

Float32 = npt.NDArray[np.float32]
Operation = Literal["set", "add", "scale", "max", "min"]

LARGEST_ACTIVATION = float(np.log(1.0 / 1e-4))
"""s of a patch that lies on its prototype; none can be larger (model.encoder.similarity at d = 0)."""

EDIT_TOLERANCE = 0.1
"""Where all activations that are edited or held are this near to what was asked, no more is done."""
HELD_GAIN = 0.5
"""What is taken back of a held entry's drift each round; more makes the entries fight each other."""
HELD_WEIGHT = 1.0
"""Of the mean drift of held entries against the shortfall of an edited one: the edit comes first."""


@dataclass(frozen=True)
class Edit:
    """One change: `max` and `min` take the prototype's own 0.99 and 0.01 quantile and no value."""

    prototype: int | str
    op: Operation
    value: float | None = None

    def __post_init__(self) -> None:
        if (self.op in ("max", "min")) != (self.value is None):
            needs = "takes no value" if self.op in ("max", "min") else "needs a value"
            raise PipelineError(f"edit op {self.op!r} {needs}")


@dataclass(frozen=True)
class Clamping:
    """An edit reached further than allowed: `requested` became `used`, a bound of [low, high]."""

    prototype: int
    requested: float
    used: float
    low: float
    high: float


def prototype_index(bundle: Bundle, prototype: int | str) -> int:
    """The index of a prototype given by index or name. Raises UnknownPrototypeError."""
    m = bundle.config.num_prototypes
    if isinstance(prototype, int):
        if 0 <= prototype < m:
            return prototype
        raise UnknownPrototypeError(f"there is no prototype {prototype}: this model has 0 to {m - 1}")
    for index, entry in enumerate(bundle.prototypes):
        if entry.name == prototype:
            return index
    raise UnknownPrototypeError(f"there is no prototype named {prototype[:100]!r}")


def prototype_indices(bundle: Bundle, prototypes: Sequence[int | str] | None) -> list[int]:
    """The indices of prototypes that are each given once; None is all of them, in order.

    Raises UnknownPrototypeError, and PipelineError for one that is given twice.
    """
    if prototypes is None:
        return list(range(bundle.config.num_prototypes))
    indices = [prototype_index(bundle, prototype) for prototype in prototypes]
    repeated = sorted(j for j, count in Counter(indices).items() if count > 1)
    if repeated:
        raise PipelineError(f"prototypes are asked for more than once: {repeated}")
    return indices


def apply_edits(
    bundle: Bundle, activations: Float32, edits: Sequence[Edit], *, extrapolate: bool
) -> tuple[Float32, list[Clamping]]:
    """activations (..., m) with edits applied in order, and what had to be clamped.

    Edited entries stay within the training data's 0.01 … 0.99 quantiles, or with `extrapolate`, and in
    a bundle without statistics, within what an activation can be at all, 0 … 9.21. Raises PipelineError
    for `max` and `min` without statistics.
    """
    edited = activations.copy()
    clampings = []
    for edit in edits:
        j = prototype_index(bundle, edit.prototype)
        requested = _requested(bundle, edit, edited[..., j], j)
        low, high = (0.0, LARGEST_ACTIVATION) if extrapolate else _reach(bundle, j)
        used = np.clip(requested, low, high)
        edited[..., j] = used
        first = int(np.argmax(np.abs(requested - used).ravel()))
        if requested.ravel()[first] != used.ravel()[first]:
            pair = float(requested.ravel()[first]), float(used.ravel()[first])
            clampings.append(Clamping(j, *pair, low, high))
    return edited, clampings


class EditLoop:
    """Drives activations until the re-encoded ones reach what was asked, as feedback control.

    The denoiser follows an edit only in part, because the rest of s and x_T pull it back, and it changes
    other entries along. After each round the shortfall of every edited entry, and HELD_GAIN of that of every
    held one, is added to what the denoiser is given, within 0 … 9.21. Kept is the round with the least sum of
    shortfalls of edited entries and HELD_WEIGHT times the mean of held ones, in units of `spread`.

    asked, spread and `driven`, which the first round is given (None: what is asked), are (m,); edited and
    held are indices; held entries are asked to stay what they were.
    """

    def __init__(
        self,
        asked: Float32,
        edited: Sequence[int],
        held: Sequence[int] = (),
        spread: Float32 | None = None,
        driven: Float32 | None = None,
    ) -> None:
        self.asked = asked
        self.driven = (asked if driven is None else driven).copy()
        self.best_round = -1
        self._edited, self._held = list(edited), list(held)
        self._spread = np.ones_like(asked) if spread is None else spread
        self._gains = np.zeros_like(asked)
        self._gains[self._edited] = 1.0
        self._gains[self._held] = HELD_GAIN
        self._best = np.inf
        self._round = -1

    def observe(self, achieved: Float32) -> bool:
        """Take in the activations that `driven` led to; returns whether another round is worthwhile.

        It sets `driven` for that round, and `best_round`, counted from 0, if this was the best so far.
        """
        self._round += 1
        shortfall = self.asked - achieved
        missed = np.abs(shortfall) / self._spread
        cost = float(missed[self._edited].sum())
        if self._held:
            cost += HELD_WEIGHT * float(missed[self._held].mean())
        if cost < self._best:
            self._best, self.best_round = cost, self._round
        if not np.any(np.abs(shortfall[self._edited + self._held]) > EDIT_TOLERANCE):
            return False
        self.driven = np.clip(self.driven + self._gains * shortfall, 0.0, LARGEST_ACTIVATION)
        return True


def _reach(bundle: Bundle, j: int) -> tuple[float, float]:
    """The least and the most that an edit of prototype `j` reaches without extrapolation."""
    if bundle.statistics is None:
        return 0.0, LARGEST_ACTIVATION
    return float(bundle.statistics.low[j]), float(bundle.statistics.high[j])


def _requested(bundle: Bundle, edit: Edit, current: Float32, j: int) -> npt.NDArray[np.float64]:
    before = np.asarray(current, dtype=np.float64)
    if edit.op in ("max", "min"):
        statistics = statistics_of(bundle, f"edit op {edit.op!r}")
        return np.full_like(before, (statistics.high if edit.op == "max" else statistics.low)[j])
    assert edit.value is not None  # checked at construction
    if edit.op == "set":
        return np.full_like(before, edit.value)
    return before + edit.value if edit.op == "add" else before * edit.value
