"""Changes to an activation vector, asked for by prototype or by attribute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from model.bundle import Bundle
from service.pipeline.errors import PipelineError, UnknownAttributeError, UnknownPrototypeError
from service.pipeline.measured import attributes_of, statistics_of

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
T = TypeVar("T", int, str)
Operation = Literal["set", "add", "scale", "max", "min"]

LARGEST_ACTIVATION = float(np.log(1.0 / 1e-4))
"""s of a patch that lies on its prototype; none can be larger (model.encoder.similarity at d = 0)."""

EDIT_TOLERANCE = 0.1
"""Where all activations that are edited or held are this near to what was asked, no more is done."""
ATTRIBUTE_TOLERANCE = 0.1
"""The same for the log-odds of an attribute, in standard deviations."""
HELD_GAIN = 0.5
"""Of what is held, the share of its drift that is taken back each round; more makes the entries fight."""
HELD_WEIGHT = 1.0
"""Of the mean drift of what is held against the shortfall of what is edited: the edit comes first."""


@dataclass(frozen=True)
class Edit:
    """One change, of a prototype's activation or of an attribute's log-odds, just one of the two.

    `max` and `min` take its own 0.99 and 0.01 quantile and no value.
    """

    prototype: int | str | None
    op: Operation
    value: float | None = None
    attribute: str | None = None

    def __post_init__(self) -> None:
        if (self.prototype is None) == (self.attribute is None):
            raise PipelineError("an edit is of a prototype or of an attribute: give one of the two")
        if (self.op in ("max", "min")) != (self.value is None):
            needs = "takes no value" if self.op in ("max", "min") else "needs a value"
            raise PipelineError(f"edit op {self.op!r} {needs}")


@dataclass(frozen=True)
class Clamping:
    """An edit reached further than allowed: `requested` became `used`, a bound of [low, high].

    For an attribute, `used` are log-odds that can fall short of that bound too, where the activations that
    make them are at theirs.
    """

    prototype: int | None
    requested: float
    used: float
    low: float
    high: float
    attribute: str | None = None


@dataclass(frozen=True, eq=False)
class Target:
    """What an edit moves, or holds: s @ readout + offset is its value, `direction` raises that; both (m,).

    By 1, or less for an attribute that is held (`model.attributes.Attributes.directions`).

    low, high: the least and the most without extrapolation; unit: one standard deviation over the training
    data, 1 where nobody measured it; prototypes: those that carry most of the change.
    """

    prototype: int | None
    attribute: str | None
    readout: Float64
    offset: float
    direction: Float64
    low: float
    high: float
    unit: float
    prototypes: tuple[int, ...]

    def value(self, s: Float32) -> Float64:
        """Of activations (..., m), (...)."""
        return np.asarray(s.astype(np.float64) @ self.readout + self.offset)


CARRIES = 0.5
"""A prototype carries an attribute if its change, in deviations, is this share of the largest, or more."""


def target_of(bundle: Bundle, edit: Edit) -> Target:
    """Raises UnknownPrototypeError, UnknownAttributeError, and PipelineError for a bundle without labels."""
    if edit.attribute is not None:
        return attribute_target(bundle, edit.attribute)
    assert edit.prototype is not None  # checked at construction
    return prototype_target(bundle, prototype_index(bundle, edit.prototype))


def prototype_target(bundle: Bundle, j: int) -> Target:
    """The activation of prototype `j`, and nothing else."""
    one = np.zeros(bundle.config.num_prototypes)
    one[j] = 1.0
    low, high, unit = 0.0, LARGEST_ACTIVATION, 1.0
    if bundle.statistics is not None:
        low, high = float(bundle.statistics.low[j]), float(bundle.statistics.high[j])
        unit = float(bundle.statistics.spread[j])
    return Target(j, None, one, 0.0, one, low, high, unit, (j,))


def attribute_target(bundle: Bundle, name: str) -> Target:
    """The log-odds of an attribute by its linear probe, moved by itself.

    Raises UnknownAttributeError, and PipelineError for a bundle without labels.
    """
    return joint_attribute_targets(bundle, [name])[0]


def joint_attribute_targets(bundle: Bundle, moved: Sequence[str], held: Sequence[str] = ()) -> list[Target]:
    """Of attributes that are moved or held at the same time, each with a `direction` that spares the others.

    Raises UnknownAttributeError, and PipelineError for a bundle without labels.
    """
    attributes = attributes_of(bundle, "an edit of an attribute")
    statistics = statistics_of(bundle, "an edit of an attribute")
    indices = [attribute_index(bundle, name) for name in (*moved, *held)]
    directions = attributes.directions(indices[: len(moved)], statistics, indices[len(moved) :])
    units = attributes.logit_spread(statistics)
    targets = []
    for k, direction in zip(indices, directions.T, strict=True):
        readout, offset = attributes.readout(k, statistics)
        deviations = np.abs(direction) / statistics.spread
        strongest = np.argsort(-deviations, kind="stable").tolist()
        target = Target(
            prototype=None,
            attribute=attributes.names[k],
            readout=readout,
            offset=offset,
            direction=direction,
            low=float(attributes.probe_low[k]),
            high=float(attributes.probe_high[k]),
            unit=float(units[k]),
            prototypes=tuple(j for j in strongest if deviations[j] >= CARRIES * deviations.max()),
        )
        targets.append(target)
    return targets


def attribute_index(bundle: Bundle, name: str) -> int:
    """Raises UnknownAttributeError, and PipelineError for a bundle without labels."""
    names = attributes_of(bundle, "an edit of an attribute").names
    if name not in names:
        raise UnknownAttributeError(
            f"there is no attribute {name[:100]!r}: this model knows {', '.join(names)}"
        )
    return names.index(name)


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
    if bundle.attributes is not None and prototype in bundle.attributes.names:
        raise UnknownPrototypeError(
            f'{prototype!r} is an attribute, not a prototype: name it so ({{"attribute": ...}}, @ on the '
            "command line)"
        )
    raise UnknownPrototypeError(f"there is no prototype named {prototype[:100]!r}")


def prototype_indices(bundle: Bundle, prototypes: Sequence[int | str] | None) -> list[int]:
    """The indices of prototypes that are each given once; None is all of them, in order.

    Raises UnknownPrototypeError, and PipelineError for one that is given twice.
    """
    if prototypes is None:
        return list(range(bundle.config.num_prototypes))
    indices = [prototype_index(bundle, prototype) for prototype in prototypes]
    if twice := repeated(indices):
        raise PipelineError(f"prototypes are asked for more than once: {twice}")
    return indices


def attribute_targets(bundle: Bundle, names: Sequence[str]) -> list[Target]:
    """Attributes that are each given once.

    Raises UnknownAttributeError, and PipelineError for one that is given twice or a bundle without labels.
    """
    targets = [attribute_target(bundle, name) for name in names]
    if twice := repeated(names):
        raise PipelineError(f"attributes are asked for more than once: {', '.join(twice)}")
    return targets


def repeated(items: Sequence[T]) -> list[T]:
    """Those that are there more than once, ascending."""
    return sorted(item for item, count in Counter(items).items() if count > 1)


def named_targets(bundle: Bundle, edits: Sequence[Edit]) -> dict[int | str, Target]:
    """What edits move, each once, by index or name of attribute, in the order of the first edit of each.

    Raises as `target_of` does.
    """
    targets: dict[int | str, Target] = {}
    for edit in edits:
        named = _named(bundle, edit)
        if named not in targets:
            targets[named] = target_of(bundle, edit)
    return targets


def apply_edits(
    bundle: Bundle,
    activations: Float32,
    edits: Sequence[Edit],
    *,
    extrapolate: bool,
    held_attributes: Sequence[str] = (),
) -> tuple[Float32, list[Clamping]]:
    """activations (..., m) with edits applied in order, and what had to be clamped.

    What is edited stays within the training data's 0.01 … 0.99 quantiles, and so do the activations that an
    attribute moves, unless they were outside. With `extrapolate`, and in a bundle without statistics, only
    what an activation can be at all, 0 … 9.21, bounds them. An edit of an attribute leaves prototypes that
    were edited before it where they are, and moves attributes that were, and `held_attributes`, as little as
    it can. Raises PipelineError for `max` and `min` without statistics, and what `target_of` raises.
    """
    edited = activations.copy()
    clampings = []
    targets = named_targets(bundle, edits)
    held = list(held_attributes)
    is_set = np.zeros(edited.shape[-1], bool)
    for edit in edits:
        target = targets[_named(bundle, edit)]
        requested = _requested(bundle, edit, target, edited)
        if target.prototype is not None:
            low, high = (0.0, LARGEST_ACTIVATION) if extrapolate else (target.low, target.high)
            used = np.clip(requested, low, high)
            edited[..., target.prototype] = used
            is_set[target.prototype] = True
        else:
            assert target.attribute is not None  # it is of one of the two
            low, high = (-np.inf, np.inf) if extrapolate else (target.low, target.high)
            others = [name for name in held if name != target.attribute]
            edited = _with_log_odds(
                bundle,
                target.attribute,
                edited,
                np.clip(requested, low, high),
                held=others,
                is_set=is_set,
                extrapolate=extrapolate,
            )
            held = [*others, target.attribute]
            reached = target.value(edited)
            is_reached = np.abs(reached - requested) <= ATTRIBUTE_TOLERANCE * target.unit
            used = np.where(is_reached, requested, reached)
            if extrapolate:  # what its activations can be is all that bounds it
                low, high = float(used.min()), float(used.max())
        first = int(np.argmax(np.abs(requested - used).ravel()))
        if requested.ravel()[first] != used.ravel()[first]:
            pair = float(requested.ravel()[first]), float(used.ravel()[first])
            clampings.append(Clamping(target.prototype, *pair, low, high, target.attribute))
    return edited, clampings


def _named(bundle: Bundle, edit: Edit) -> int | str:
    """The index of the prototype that is edited, or the attribute's name. Raises UnknownPrototypeError."""
    if edit.attribute is not None:
        return edit.attribute
    assert edit.prototype is not None  # checked at construction
    return prototype_index(bundle, edit.prototype)


def _with_log_odds(
    bundle: Bundle,
    name: str,
    s: Float32,
    value: Float64,
    *,
    held: Sequence[str],
    is_set: npt.NDArray[np.bool_],
    extrapolate: bool,
) -> Float32:
    """s (..., m) with the log-odds of an attribute at `value` (...), as far as bounds let them.

    held: attributes that stay where they are, as far as they can; is_set: (m,), entries that do.
    """
    attributes = attributes_of(bundle, "an edit of an attribute")
    statistics = statistics_of(bundle, "an edit of an attribute")
    low, high = (0.0, LARGEST_ACTIVATION) if extrapolate else (statistics.low, statistics.high)
    within = (
        np.where(is_set, s, low).astype(np.float32),
        np.where(is_set, s, high).astype(np.float32),
    )
    others = [attribute_index(bundle, other) for other in held]
    return attributes.moved(s, attribute_index(bundle, name), value, statistics, within, others)


class EditLoop:
    """Drives activations until the re-encoded ones reach what was asked, as feedback control.

    The denoiser follows an edit only in part, because the rest of s and x_T pull it back, and it changes
    other entries along. After each round the shortfall of every target, along its direction, and HELD_GAIN
    of that of everything that is held, is added to what the denoiser is given, within 0 … 9.21. Kept is the
    round with the least sum of shortfalls of targets and HELD_WEIGHT times the mean of what is held, in units
    of their deviations.

    asked, spread (deviations) and `driven`, which the first round is given (None: what is asked), are (m,);
    held are indices, asked to be what they are in `asked`; held_attributes what they are in `before` (m,).
    """

    def __init__(
        self,
        asked: Float32,
        targets: Sequence[Target],
        held: Sequence[int] = (),
        spread: Float32 | None = None,
        driven: Float32 | None = None,
        *,
        before: Float32 | None = None,
        held_attributes: Sequence[Target] = (),
    ) -> None:
        self.asked = asked
        self.driven = (asked if driven is None else driven).copy()
        self.best_round = -1
        self._targets, self._held, self._held_attributes = list(targets), list(held), list(held_attributes)
        self._before = asked if before is None else before
        self._spread = np.ones_like(asked) if spread is None else spread
        self._best = np.inf
        self._round = -1

    def observe(self, achieved: Float32) -> bool:
        """Take in the activations that `driven` led to; returns whether another round is worthwhile.

        It sets `driven` for that round, and `best_round`, counted from 0, if this was the best so far.
        """
        self._round += 1
        shortfall = self.asked - achieved  # (m,)
        missed = [(target, _missed(target, self.asked, achieved)) for target in self._targets]
        drift = [(target, _missed(target, self._before, achieved)) for target in self._held_attributes]
        cost = sum(abs(miss) / target.unit for target, miss in missed)
        for deviations in (
            (np.abs(shortfall) / self._spread)[self._held],
            [abs(miss) / target.unit for target, miss in drift],
        ):
            if len(deviations):
                cost += HELD_WEIGHT * float(np.mean(deviations))
        if cost < self._best:
            self._best, self.best_round = cost, self._round
        near = all(abs(miss) <= _tolerance(target) for target, miss in [*missed, *drift])
        if near and not np.any(np.abs(shortfall[self._held]) > EDIT_TOLERANCE):
            return False
        change = np.zeros(len(self.asked))
        for gain, parts in ((1.0, missed), (HELD_GAIN, drift)):
            for target, miss in parts:
                change += gain * miss * target.direction
        change[self._held] += HELD_GAIN * shortfall[self._held]
        self.driven = np.clip(self.driven + change, 0.0, LARGEST_ACTIVATION).astype(np.float32)
        return True


def _missed(target: Target, wanted: Float32, achieved: Float32) -> float:
    return float(target.value(wanted) - target.value(achieved))


def _tolerance(target: Target) -> float:
    return EDIT_TOLERANCE if target.prototype is not None else ATTRIBUTE_TOLERANCE * target.unit


def _requested(bundle: Bundle, edit: Edit, target: Target, s: Float32) -> Float64:
    """The value (...) that an edit asks of activations (..., m)."""
    before = target.value(s)
    if edit.op in ("max", "min"):
        if target.prototype is not None:
            statistics_of(bundle, f"edit op {edit.op!r}")  # the quantiles
        return np.full_like(before, target.high if edit.op == "max" else target.low)
    assert edit.value is not None  # checked at construction
    if edit.op == "set":
        return np.full_like(before, edit.value)
    return before + edit.value if edit.op == "add" else before * edit.value
