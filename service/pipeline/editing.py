"""An edit of a given image: what it changes, what it holds, and how far back into noise it goes."""

from __future__ import annotations

from collections import Counter
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
from service.pipeline.edits import Clamping, Edit, prototype_index
from service.pipeline.errors import PipelineError
from service.pipeline.known_images import Encoding
from service.pipeline.measured import effects_of, statistics_of
from service.pipeline.round_trip import Inversion, RoundTrip, level_reaching, round_trip

Float32 = npt.NDArray[np.float32]

Preserve = Literal["others"] | Sequence[int | str]
Start = Literal["full", "auto"] | int


@dataclass(frozen=True, eq=False)
class EditPlan:
    """An edit that was found possible: `edited` and `held` are indices of prototypes, ascending.

    spread: (m,), standard deviations over the training data, or None where nobody measured them. decoupling:
    what to drive instead of what is asked, None where just that is driven.
    """

    edits: Sequence[Edit]
    extrapolate: bool
    edited: list[int]
    held: list[int]
    spread: Float32 | None
    rounds: int
    trip: RoundTrip
    decoupling: Decoupling | None = None

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
    steps: int = 20,
    rounds: int = 4,
    start: Start = "full",
    inversion: Inversion = "ddim",
    decouple: bool = False,
) -> EditPlan:
    """Check an edit against the bundle. Raises PipelineError.

    preserve: prototypes whose activations are held where they are in the image, or "others", all that are not
    edited. start: the noisiest timestep that the image is taken back to; "full" is T - 1, "auto" where the
    edited prototypes emerge. decouple: drive, from the first round on, what is held (without `preserve`, all
    others) against the measured effects of the edit.
    """
    edited = edited_prototypes(bundle, edits)
    held = _held(bundle, edited, preserve)
    if held and rounds < 2:
        raise PipelineError(
            f"preserve needs rounds of at least 2, not {rounds}: "
            "what else an edit changes is only seen, and taken back, after the first"
        )
    schedule = NoiseSchedule.from_config(bundle.config.schedule)
    if start == "auto":
        start = level_reaching(schedule, steps, _emergence(bundle, edited), inversion)
    trip = round_trip(schedule, steps, start=None if start == "full" else start, inversion=inversion)
    decoupling = decoupling_of(bundle, edited, held) if decouple else None
    return EditPlan(edits, extrapolate, edited, held, _spread(bundle), rounds, trip, decoupling)


def edited_prototypes(bundle: Bundle, edits: Sequence[Edit]) -> list[int]:
    """Their indices, ascending. Raises UnknownPrototypeError."""
    return sorted({prototype_index(bundle, edit.prototype) for edit in edits})


def decoupling_of(bundle: Bundle, edited: Sequence[int], held: Sequence[int] = ()) -> Decoupling:
    """Of an edit that changes `edited` and should leave `held`, or without any all others, as they are.

    Raises PipelineError where the bundle has no measured effects.
    """
    effects = effects_of(bundle, "decouple")
    spread = statistics_of(bundle, "decouple").spread
    others = [j for j in range(bundle.config.num_prototypes) if j not in edited]
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
    def leakage(self) -> float | None:
        """Mean |change| of the activations that were not edited, in `plan.spread`; None without either."""
        others = np.ones(len(self.asked), bool)
        others[self.plan.edited] = False
        if self.plan.spread is None or not others.any():
            return None
        change = np.abs(self.achieved - self.source.activations) / self.plan.spread
        return float(change[others].mean())


def _held(bundle: Bundle, edited: Sequence[int], preserve: Preserve) -> list[int]:
    if preserve == "others":
        return [j for j in range(bundle.config.num_prototypes) if j not in edited]
    held = [prototype_index(bundle, prototype) for prototype in preserve]
    repeated = sorted(j for j, count in Counter(held).items() if count > 1)
    if repeated:
        raise PipelineError(f"preserve names prototypes more than once: {repeated}")
    both = sorted(set(held) & set(edited))
    if both:
        raise PipelineError(f"prototypes {both} are both edited and to be preserved")
    return sorted(held)


def _emergence(bundle: Bundle, edited: Sequence[int]) -> int:
    """The noisiest of the timesteps at which the edited prototypes emerge."""
    timesteps = {j: bundle.prototypes[j].emergence_timestep for j in edited}
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
