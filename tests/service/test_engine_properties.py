"""Whatever happens to the engine in whatever order, it behaves like a list of rows that advance together.

A model of the engine without any arrays (`Expected`) is driven beside it; Hypothesis looks for a
sequence of events after which the two disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from model.config import small_config
from model.samplers import SamplerTable, ddim, ddim_inversion, ddpm, dpmpp_2m
from model.schedule import NoiseSchedule
from service.engine.engine_core import EngineCore
from service.engine.errors import (
    DeadlineExceededError,
    EngineError,
    EngineStoppedError,
    JobCancelledError,
    JobTooLargeError,
    NonFiniteOutputError,
    OutOfMemoryError,
    QueueFullError,
    StepFailedError,
)
from service.engine.fake_runner import FakeRunner
from service.engine.jobs import DenoiseJob, EncodeJob, Ticket
from service.engine.observer import SilentObserver
from service.engine.runner import StepInputs, StepOutputs

Float32 = npt.NDArray[np.float32]

CONFIG = small_config(size=16, num_prototypes=4)
SCHEDULE = NoiseSchedule.from_config(CONFIG.schedule)
TABLES: list[SamplerTable] = [
    ddim(SCHEDULE, 1),
    ddim(SCHEDULE, 4),
    ddim(SCHEDULE, 3, eta=1.0, clip=1.0),
    ddpm(SCHEDULE, 5),
    dpmpp_2m(SCHEDULE, 3, clip=1.0),
    ddim_inversion(SCHEDULE, 2),
]
MAX_QUEUE = 7
MAX_TICKS = 1000


class FaultyRunner(FakeRunner):
    """Fails for chosen jobs, which it knows by their first activation, or pixel; has limited memory."""

    def __init__(self, *, max_batch: int) -> None:
        super().__init__(CONFIG, max_batch=max_batch)
        self.raises_for: set[float] = set()
        self.nan_for: set[float] = set()
        self.fits = max_batch

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        marks = inputs.activations[:, 0]
        self._check(marks)
        outputs = super().denoise_step(inputs)
        outputs.x_next[np.isin(marks, list(self.nan_for))] = np.nan
        return outputs

    def encode(self, x_0: Float32) -> tuple[Float32, Float32]:
        marks = x_0[:, 0, 0, 0]
        self._check(marks)
        activations, maps = super().encode(x_0)
        activations[np.isin(marks, list(self.nan_for))] = np.nan
        return activations, maps

    def _check(self, marks: Float32) -> None:
        if len(marks) > self.fits:
            raise OutOfMemoryError("too many rows")
        if np.isin(marks, list(self.raises_for)).any():
            raise RuntimeError("a kernel failed")


@dataclass(eq=False)
class Claim:
    """A job, what the engine said of it, and what it should have said."""

    job: DenoiseJob | EncodeJob
    mark: float
    is_expected_done: bool = False
    expected_error: type[EngineError] | None = None
    times_told: int = 0
    ticket: Ticket[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.ticket = Ticket(self._tell)

    def _tell(self, ticket: Ticket[Any]) -> None:
        self.times_told += 1

    def expect(self, error: type[EngineError] | None) -> None:
        if not self.is_expected_done:
            self.is_expected_done, self.expected_error = True, error


@dataclass(eq=False)
class ExpectedRow:
    claim: Claim
    steps_left: int


class Expected:
    """What an engine should do, told with counters only."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.waiting: list[ExpectedRow] = []
        self.rows: list[ExpectedRow] = []
        self.encodings: list[Claim] = []

    @property
    def num_waiting(self) -> int:
        return len(self.waiting) + sum(len(claim.job) for claim in self.encodings)

    def submit(self, claim: Claim) -> None:
        count = len(claim.job)
        if count > MAX_QUEUE:
            claim.expect(JobTooLargeError)
        elif self.num_waiting + count > MAX_QUEUE:
            claim.expect(QueueFullError)
        elif isinstance(claim.job, EncodeJob):
            self.encodings.append(claim)
        else:
            self.waiting += [ExpectedRow(claim, len(claim.job.table)) for _ in range(count)]

    def fail(self, claim: Claim, error: type[EngineError]) -> None:
        claim.expect(error)
        self._drop_done()

    def tick(self, now: float, runner: FaultyRunner) -> None:
        for claim in self.unfinished():
            if claim.job.deadline <= now:
                self.fail(claim, DeadlineExceededError)
        for claim in self.encodings:
            claim.expect(_fault(claim, runner))
        self.encodings.clear()
        num_free = self.capacity - len(self.rows)
        self.rows += self.waiting[:num_free]
        del self.waiting[:num_free]
        stepped = list(self.rows)
        for row in stepped:
            row.steps_left -= 1
            fault = _fault(row.claim, runner)
            if fault is not None:
                self.fail(row.claim, fault)
        self.rows = [row for row in self.rows if row.steps_left]
        unfinished = self.unfinished()
        for row in stepped:
            if row.claim not in unfinished:
                row.claim.expect(None)

    def unfinished(self) -> list[Claim]:
        return [*dict.fromkeys(row.claim for row in [*self.rows, *self.waiting]), *self.encodings]

    def _drop_done(self) -> None:
        self.rows = [row for row in self.rows if not row.claim.is_expected_done]
        self.waiting = [row for row in self.waiting if not row.claim.is_expected_done]
        self.encodings = [claim for claim in self.encodings if not claim.is_expected_done]


def _fault(claim: Claim, runner: FaultyRunner) -> type[EngineError] | None:
    if claim.mark in runner.raises_for:
        return StepFailedError
    return NonFiniteOutputError if claim.mark in runner.nan_for else None


class EngineMachine(RuleBasedStateMachine):
    """Events that can happen to an engine; after each, it and the model of it must agree."""

    @initialize(max_batch=st.integers(1, 5))
    def start(self, max_batch: int) -> None:
        self.runner = FaultyRunner(max_batch=max_batch)
        self.core = EngineCore(self.runner, max_queue=MAX_QUEUE, observer=SilentObserver())
        self.expected = Expected(max_batch)
        self.claims: list[Claim] = []
        self.now = 0.0

    @rule(
        count=st.integers(1, MAX_QUEUE + 1),
        table=st.sampled_from(range(len(TABLES))),
        patience=st.sampled_from([math.inf, math.inf, 1.0, 3.0]),
    )
    def submit_samples(self, count: int, table: int, patience: float) -> None:
        mark = float(len(self.claims) + 1)
        claim = Claim(_denoise_job(count, table, mark, self.now + patience), mark)
        self.claims.append(claim)
        assert isinstance(claim.job, DenoiseJob)
        self.core.submit_denoise(claim.job, claim.ticket, self.now)
        self.expected.submit(claim)

    @rule(count=st.integers(1, 3), patience=st.sampled_from([math.inf, 1.0]))
    def submit_images(self, count: int, patience: float) -> None:
        mark = float(len(self.claims) + 1)
        x_0 = np.random.default_rng(count).uniform(-1, 1, (count, *CONFIG.image.shape)).astype(np.float32)
        x_0[:, 0, 0, 0] = mark
        claim = Claim(EncodeJob(x_0, self.now + patience), mark)
        self.claims.append(claim)
        assert isinstance(claim.job, EncodeJob)
        self.core.submit_encode(claim.job, claim.ticket, self.now)
        self.expected.submit(claim)

    @rule(times=st.integers(1, 4), seconds=st.sampled_from([0.0, 0.5, 1.0]))
    def tick(self, times: int, seconds: float) -> None:
        for _ in range(times):
            self.now += seconds
            self.expected.tick(self.now, self.runner)
            self.core.tick(lambda: self.now)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Of any job there ever was: also of one that has its result."""
        claim = data.draw(st.sampled_from(self.claims))
        self.core.cancel(claim.ticket)
        self.expected.fail(claim, JobCancelledError)

    @precondition(lambda self: self.expected.unfinished())
    @rule(data=st.data(), gives_nan=st.booleans())
    def have_the_network_fail_for_a_job(self, data: st.DataObject, gives_nan: bool) -> None:
        claim = data.draw(st.sampled_from(self.expected.unfinished()))
        (self.runner.nan_for if gives_nan else self.runner.raises_for).add(claim.mark)

    @rule(fits=st.integers(1, 5))
    def change_memory(self, fits: int) -> None:
        self.runner.fits = fits

    @rule()
    def abort(self) -> None:
        self.core.abort(EngineStoppedError("stop"))
        for claim in self.expected.unfinished():
            self.expected.fail(claim, EngineStoppedError)

    @invariant()
    def tickets_are_told_once_and_only_when_they_should_be(self) -> None:
        for claim in self.claims:
            assert claim.times_told == claim.is_expected_done
            assert type(claim.ticket.error) is (claim.expected_error or type(None))

    @invariant()
    def no_row_and_no_place_in_the_queue_leaks(self) -> None:
        assert self.core.num_active_samples == len(self.expected.rows)
        assert self.core.num_waiting_samples == self.expected.num_waiting
        assert self.core.has_work == bool(self.expected.unfinished())

    def teardown(self) -> None:
        for _ in range(MAX_TICKS):
            if not self.core.has_work:
                break
            self.tick(1, 0.0)
        self.no_row_and_no_place_in_the_queue_leaks()
        self.tickets_are_told_once_and_only_when_they_should_be()
        for claim in self.claims:
            assert claim.times_told == 1
            if claim.expected_error is None:
                np.testing.assert_allclose(_outcome(claim), _solo(claim), rtol=1e-4, atol=1e-4)


TestEngine = EngineMachine.TestCase
TestEngine.settings = settings(max_examples=100, stateful_step_count=25, deadline=None, database=None)


def _denoise_job(count: int, table: int, mark: float, deadline: float) -> DenoiseJob:
    rng = np.random.default_rng([table, int(mark)])
    x = rng.standard_normal((count, *CONFIG.image.shape), dtype=np.float32)
    activations = rng.uniform(0.0, 3.0, (count, CONFIG.num_prototypes)).astype(np.float32)
    activations[:, 0] = mark
    return DenoiseJob(x, activations, TABLES[table], tuple(range(count)), deadline)


def _outcome(claim: Claim) -> Float32:
    result = claim.ticket.result
    assert result is not None
    found: Float32 = result.activations if isinstance(claim.job, EncodeJob) else result.x
    return found


def _solo(claim: Claim) -> Float32:
    """What each sample of the job becomes in an engine of its own."""
    samples = []
    for i in range(len(claim.job)):
        core = EngineCore(FakeRunner(CONFIG, max_batch=1), max_queue=1, observer=SilentObserver())
        part = slice(i, i + 1)
        job = claim.job
        if isinstance(job, EncodeJob):
            alone = Claim(EncodeJob(job.x_0[part]), claim.mark)
            core.submit_encode(EncodeJob(job.x_0[part]), alone.ticket, 0.0)
        else:
            only = DenoiseJob(job.x[part], job.activations[part], job.table, job.noise_seeds[part])
            alone = Claim(only, claim.mark)
            core.submit_denoise(only, alone.ticket, 0.0)
        while core.has_work:
            core.tick(lambda: 0.0)
        samples.append(_outcome(alone))
    return np.concatenate(samples)
