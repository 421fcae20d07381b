"""An engine without a thread, beside a clock that only the network's steps move."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from model.config import small_config
from model.samplers import SamplerTable, ddim
from model.schedule import NoiseSchedule
from service.engine.engine_core import EngineCore
from service.engine.fake_runner import FakeRunner
from service.engine.jobs import DenoiseJob, OnStep, Priority, Ticket
from service.engine.observer import SilentObserver
from service.engine.runner import StepInputs, StepOutputs

Float32 = npt.NDArray[np.float32]

CONFIG = small_config(size=16, num_prototypes=4)
SCHEDULE = NoiseSchedule.from_config(CONFIG.schedule)


def job(
    steps: int | SamplerTable,
    count: int = 1,
    *,
    seed: int = 0,
    deadline: float = math.inf,
    priority: Priority = Priority.NORMAL,
    on_step: OnStep | None = None,
) -> DenoiseJob:
    """`count` samples drawn by `seed`, through `steps` DDIM steps or the table given."""
    rng = np.random.default_rng(seed)
    table = ddim(SCHEDULE, steps) if isinstance(steps, int) else steps
    return DenoiseJob(
        rng.standard_normal((count, *CONFIG.image.shape), dtype=np.float32),
        rng.uniform(0.0, 3.0, (count, CONFIG.num_prototypes)).astype(np.float32),
        table,
        tuple(rng.integers(0, 2**32, count).tolist()),
        deadline,
        priority=priority,
        on_step=on_step,
    )


class TimedRunner(FakeRunner):
    """Says how long its steps take: `base_s + row_s * rows`, added to `now`."""

    def __init__(self, *, max_batch: int, base_s: float = 0.004, row_s: float = 0.0002) -> None:
        super().__init__(CONFIG, max_batch=max_batch)
        self.base_s = base_s
        self.row_s = row_s
        self.now = 0.0
        self.rows_per_step: list[int] = []

    def step_s(self, rows: int) -> float:
        return self.base_s + self.row_s * rows

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        self.now += self.step_s(len(inputs))
        self.rows_per_step.append(len(inputs))
        return super().denoise_step(inputs)


@dataclass(eq=False)
class Submitted:
    """A job in the engine, and when its ticket was resolved, in ticks and seconds."""

    bench: EngineBench
    job: DenoiseJob
    submitted_at: float
    submitted_at_tick: int
    ended_at: float = math.nan
    ended_at_tick: int = -1
    ticket: Ticket[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.ticket = Ticket(self._tell)

    def _tell(self, ticket: Ticket[Any]) -> None:
        assert self.ended_at_tick == -1, "told twice"
        self.ended_at, self.ended_at_tick = self.bench.runner.now, self.bench.num_ticks

    @property
    def x(self) -> Float32:
        assert self.ticket.error is None, self.ticket.error
        x: Float32 = self.ticket.result.x  # type: ignore[union-attr]
        return x

    @property
    def num_ticks(self) -> int:
        """From submission to its end."""
        assert self.ticket.result is not None
        return self.ended_at_tick - self.submitted_at_tick


class Preemptions(SilentObserver):
    """Counts rows that were given to others."""

    count = 0

    def preempted(self, rows: int) -> None:
        self.count += rows


class EngineBench:
    """Submits jobs to an EngineCore and ticks it."""

    def __init__(
        self, runner: TimedRunner | None = None, *, max_batch: int = 4, max_queue: int = 1000
    ) -> None:
        self.runner = runner or TimedRunner(max_batch=max_batch)
        self.preemptions = Preemptions()
        self.core = EngineCore(self.runner, max_queue=max_queue, observer=self.preemptions)
        self.num_ticks = 0

    def submit(self, new: DenoiseJob) -> Submitted:
        submitted = Submitted(self, new, self.runner.now, self.num_ticks)
        self.core.submit_denoise(new, submitted.ticket, self.runner.now)
        return submitted

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.num_ticks += 1
            self.core.tick(lambda: self.runner.now)

    def run(self, max_ticks: int = 10_000) -> None:
        for _ in range(max_ticks):
            if not self.core.has_work:
                return
            self.tick()
        raise AssertionError(f"work is left after {max_ticks} ticks")


def alone(given: DenoiseJob) -> Float32:
    """What a job becomes when nobody else is there and every sample has a row from the start."""
    bench = EngineBench(max_batch=len(given))
    submitted = bench.submit(given)
    bench.run()
    return submitted.x
