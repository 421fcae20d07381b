"""An image's way into its own noise and back: all of it, or only as far as some timestep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from model.samplers import (
    SamplerTable,
    bdia_inversion,
    bdia_regeneration,
    ddim,
    ddim_inversion,
    sampling_timesteps,
)
from model.schedule import NoiseSchedule
from service.pipeline.errors import PipelineError

Float32 = npt.NDArray[np.float32]

Inversion = Literal["ddim", "bdia"]

LEAST_STEPS: dict[Inversion, int] = {"ddim": 1, "bdia": 2}
"""There and back: a state of BDIA needs two neighbours."""


@dataclass(frozen=True, eq=False)
class Noised:
    """Where a way back starts: x, and for `bdia` the memory of its first step, each (C, H, W)."""

    x: Float32
    memory: Float32 | None

    def copies(self, count: int) -> tuple[Float32, Float32 | None]:
        """x and memory for `count` samples, each (count, C, H, W)."""
        memory = None if self.memory is None else np.repeat(self.memory[None], count, axis=0)
        return np.repeat(self.x[None], count, axis=0), memory


@dataclass(frozen=True, eq=False)
class RoundTrip:
    """The tables of an inversion, and of the way back from where it ends.

    start_timestep: the noisiest level of the way. name: no other round trip of the same schedule has it.
    """

    name: str
    start_timestep: int
    there: SamplerTable
    back: SamplerTable
    has_memory: bool

    def turned(self, x: Float32, memory: Float32) -> Noised:
        """What the inversion ended with, as the way back takes it: with memory, the two change places."""
        return Noised(memory, x) if self.has_memory else Noised(x, None)


def round_trip(
    schedule: NoiseSchedule, steps: int, *, start: int | None = None, inversion: Inversion = "ddim"
) -> RoundTrip:
    """Over those of the `steps` levels of a whole inversion that are at timestep `start` or below.

    None is all of them, up to T - 1. A way that stops short of it is SDEdit's (Meng et al. 2022), with the
    image's own noise in place of a random one. Raises PipelineError where there is no such way.
    """
    levels = _levels(schedule, steps, inversion)
    lowest, highest = int(levels[LEAST_STEPS[inversion] - 1]), schedule.num_timesteps - 1
    if start is not None and not lowest <= start <= highest:
        raise PipelineError(
            f"start must be {lowest} to {highest} with {steps} steps of {inversion}, not {start}"
        )
    count = steps if start is None else int(np.searchsorted(levels, start, side="right"))
    name = f"{inversion}-{steps}" + ("" if count == steps else f"-from-{levels[count - 1]}")
    if inversion == "bdia":
        there, back = bdia_inversion(schedule, steps), bdia_regeneration(schedule, steps)
        num_back = count - 1  # the first state of the way back is the last but one of the way there
    else:
        there, back = ddim_inversion(schedule, steps), ddim(schedule, steps)
        num_back = count
    return RoundTrip(
        name=name,
        start_timestep=int(levels[count - 1]),
        there=SamplerTable(there.timesteps[:count], there.coefficients[:count]),
        back=SamplerTable(back.timesteps[-num_back:], back.coefficients[-num_back:]),
        has_memory=inversion == "bdia",
    )


def level_reaching(schedule: NoiseSchedule, steps: int, timestep: int, inversion: Inversion = "ddim") -> int:
    """The lowest start of a round trip that is at `timestep` (0 … T - 1) or above. Raises PipelineError."""
    levels = _levels(schedule, steps, inversion)
    index = int(np.searchsorted(levels, timestep, side="left"))
    return int(levels[max(index, LEAST_STEPS[inversion] - 1)])


def _levels(schedule: NoiseSchedule, steps: int, inversion: Inversion) -> npt.NDArray[np.int64]:
    """(steps,) timesteps of a whole inversion, upwards. Raises PipelineError."""
    least = LEAST_STEPS[inversion]
    if not least <= steps <= schedule.num_timesteps:
        raise PipelineError(
            f"steps must be {least} to {schedule.num_timesteps} with inversion {inversion}, not {steps}"
        )
    return sampling_timesteps(schedule, steps)[::-1]
