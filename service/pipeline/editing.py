"""An edit of a given image: what it changes, what it holds, and how far back into noise it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from model.bundle import Bundle
from model.decoupling import Decoupling
from model.schedule import NoiseSchedule
from model.transforms import Pixels
from service.engine.jobs import Timing
from service.pipeline.edits import (
    Clamping,
    Edit,
    Target,
    attribute_index,
    joint_attribute_targets,
    named_targets,
    prototype_index,
    repeated,
)
from service.pipeline.errors import PipelineError
from service.pipeline.known_images import Encoding
from service.pipeline.measured import attributes_of, effects_of, statistics_of
from service.pipeline.round_trip import Inversion, RoundTrip, level_reaching, round_trip

Float32 = npt.NDArray[np.float32]

Preserve = Literal["others"] | Sequence[int | str]
Start = Literal["full", "auto"] | int


@dataclass(frozen=True, eq=False)
class EditPlan:
    """An edit that was found possible: `edited` and `held` are indices of prototypes, ascending.

    targets: what is moved, prototypes and attributes; edited: the prototypes that are named by an edit;
    held_attributes: what is held of the log-odds.
    spread: (m,), standard deviations over the training data, or None where nobody measured them. decoupling:
    what to drive instead of what is asked, None where just that is driven.
    """

    edits: Sequence[Edit]
    extrapolate: bool
    targets: list[Target]
    edited: list[int]
    held: list[int]
    spread: Float32 | None
    rounds: int
    trip: RoundTrip
    decoupling: Decoupling | None = None
    held_attributes: Sequence[Target] = ()

    @property
    def names_held(self) -> list[str]:
        """The names of the attributes that are held."""
        return [target.attribute for target in self.held_attributes if target.attribute is not None]

    @property
    def num_row_steps(self) -> int:
        """Network calls for one row each, if all rounds are needed."""
        return self.num_calls(self.rounds)

    def num_calls(self, rounds: int) -> int:
        """Of the inversion, the reconstruction, and `rounds` rounds."""
        return len(self.trip.there) + len(self.trip.back) * (1 + rounds)


def plan_edit(
    bundle: Bundle,
    edits: Sequence[Edit],
    *,
    extrapolate: bool = False,
    preserve: Preserve = (),
    preserve_attributes: Sequence[str] = (),
    steps: int = 20,
    rounds: int = 4,
    start: Start = "full",
    inversion: Inversion = "ddim",
    decouple: bool = False,
) -> EditPlan:
    """Check an edit against the bundle. Raises PipelineError.

    preserve: prototypes whose activations are held where they are in the image, or where an edit of an
    attribute puts them; "others": all that no edit names. preserve_attributes: names of those whose log-odds
    are held where they are in the image, in what an edit of an attribute asks and by the corrections. start:
    the noisiest timestep that the image is taken back to; "full" is T - 1, "auto" where the edited
    prototypes, or those that carry an edited attribute, emerge. decouple: drive, from the first round on,
    what is held (without `preserve`, all others) against the measured effects of the edit.
    """
    targets = list(named_targets(bundle, edits).values())
    edited = edited_prototypes(targets)
    held = _held(bundle, edited, preserve)
    targets, held_attributes = _moved_and_held(bundle, targets, preserve_attributes)
    if (held or held_attributes) and rounds < 2:
        option = "preserve" if held else "preserve_attributes"
        raise PipelineError(
            f"{option} needs rounds of at least 2, not {rounds}: "
            "what else an edit changes is only seen, and taken back, after the first"
        )
    schedule = NoiseSchedule.from_config(bundle.config.schedule)
    if start == "auto":
        start = level_reaching(schedule, steps, _emergence(bundle, targets), inversion)
    trip = round_trip(schedule, steps, start=None if start == "full" else start, inversion=inversion)
    decoupling = decoupling_of(bundle, targets, held) if decouple else None
    return EditPlan(
        edits=edits,
        extrapolate=extrapolate,
        targets=targets,
        edited=edited,
        held=held,
        spread=_spread(bundle),
        rounds=rounds,
        trip=trip,
        decoupling=decoupling,
        held_attributes=held_attributes,
    )


def edited_prototypes(targets: Sequence[Target]) -> list[int]:
    """The indices of those that are prototypes, ascending."""
    return sorted(target.prototype for target in targets if target.prototype is not None)


def decoupling_of(bundle: Bundle, targets: Sequence[Target], held: Sequence[int] = ()) -> Decoupling:
    """Of an edit that moves `targets` and should leave `held`, or without any all others, as they are.

    An attribute moves all prototypes. Raises PipelineError where the bundle has no measured effects.
    """
    effects = effects_of(bundle, "decouple")
    spread = statistics_of(bundle, "decouple").spread
    every = range(bundle.config.num_prototypes)
    if any(target.attribute is not None for target in targets):
        return Decoupling(effects, spread, every, ())
    edited = edited_prototypes(targets)
    others = [j for j in every if j not in edited]
    return Decoupling(effects, spread, edited, held or others)


@dataclass(frozen=True, eq=False)
class EditedImage:
    """A given image regenerated from its own noise, as it was and with the edits; activations (m,) each.

    asked: the edits applied; driven: what the denoiser was given in the round that is returned, one of
    `rounds`; achieved: re-encoded from the picture.
    """

    plan: EditPlan
    source: Encoding
    edited: Pixels
    reconstruction: Pixels
    asked: Float32
    driven: Float32
    achieved: Float32
    rounds: int
    reconstruction_activations: Float32
    clamped: list[Clamping]
    timing: Timing

    @property
    def num_calls(self) -> int:
        """Network calls for one row each, an inversion that was known included."""
        return self.plan.num_calls(self.rounds)

    @property
    def moments(self) -> dict[str, Float32]:
        """Activations (m,): before the edit, asked, achieved, and of the reconstruction, by these names."""
        return {
            "before": self.source.activations,
            "asked": self.asked,
            "achieved": self.achieved,
            "reconstruction": self.reconstruction_activations,
        }

    @property
    def leakage(self) -> float | None:
        """Mean |achieved - asked| of activations that no edit names, in `plan.spread`; None without either.

        Where no attribute is edited, they were asked to stay as they are in the image.
        """
        others = np.ones(len(self.asked), bool)
        others[self.plan.edited] = False
        if self.plan.spread is None or not others.any():
            return None
        change = np.abs(self.achieved - self.asked) / self.plan.spread
        return float(change[others].mean())


def _held(bundle: Bundle, edited: Sequence[int], preserve: Preserve) -> list[int]:
    if preserve == "others":
        return [j for j in range(bundle.config.num_prototypes) if j not in edited]
    held = [prototype_index(bundle, prototype) for prototype in preserve]
    if twice := repeated(held):
        raise PipelineError(f"preserve names prototypes more than once: {twice}")
    both = sorted(set(held) & set(edited))
    if both:
        raise PipelineError(f"prototypes {both} are both edited and to be preserved")
    return sorted(held)


def _moved_and_held(
    bundle: Bundle, targets: Sequence[Target], names: Sequence[str]
) -> tuple[list[Target], list[Target]]:
    """The targets, and those of the attributes `names` to be held: together, so that each spares the others.

    Raises UnknownAttributeError and PipelineError.
    """
    moved = [target.attribute for target in targets if target.attribute is not None]
    if not moved and not names:
        return list(targets), []
    if names:
        attributes_of(bundle, "preserve_attributes")
    for name in names:
        attribute_index(bundle, name)
    if twice := repeated(names):
        raise PipelineError(f"preserve_attributes names some more than once: {', '.join(twice)}")
    both = sorted(set(names) & set(moved))
    if both:
        raise PipelineError(f"attributes are both edited and to be preserved: {', '.join(both)}")
    joint = joint_attribute_targets(bundle, moved, names)
    found = {target.attribute: target for target in joint}
    return (
        [target if target.attribute is None else found[target.attribute] for target in targets],
        joint[len(moved) :],
    )


def _emergence(bundle: Bundle, targets: Sequence[Target]) -> int:
    """The noisiest of the timesteps at which the prototypes that carry the targets emerge."""
    carriers = sorted({j for target in targets for j in target.prototypes})
    timesteps = {j: bundle.prototypes[j].emergence_timestep for j in carriers}
    unknown = [j for j, timestep in timesteps.items() if timestep is None]
    if unknown:
        raise PipelineError(
            f"start auto needs to know when the edited prototypes emerge, and the bundle {bundle.name!r} "
            f"does not say it of {unknown}: give a timestep, or let `python -m training remeasure` find out"
        )
    return max(timestep for timestep in timesteps.values() if timestep is not None)


def _spread(bundle: Bundle) -> Float32 | None:
    if bundle.statistics is None:
        return None
    return bundle.statistics.spread.astype(np.float32)
