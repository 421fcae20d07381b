"""Whatever happens to the engine in whatever order, it behaves like lists of rows that advance together.

A model of the engine without any arrays (`Expected`) is driven beside it; Hypothesis looks for a
sequence of events after which the two disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
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
from service.engine.jobs import DenoiseJob, EncodeJob, Network, Priority, Ticket
from service.engine.observer import SilentObserver
from service.engine.runner import StepInputs, StepOutputs
from service.engine.urgency import STRETCH

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
    """Fails for chosen jobs, which it knows by their first activation, or pixel; has limited memory.

    Each of its steps moves `now` by `step_s`; `arrays` are those whose rows it was given.
    """

    def __init__(self, *, max_batch: int, step_s: float) -> None:
        super().__init__(CONFIG, max_batch=max_batch, has_prior=True)
        self.raises_for: set[float] = set()
        self.nan_for: set[float] = set()
        self.fits = max_batch
        self.step_s = step_s
        self.now = 0.0
        self.arrays: dict[int, Float32] = {}

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        marks = inputs.activations[:, 0]
        self._check(marks)
        self.now += self.step_s
        assert inputs.x_t.base is not None
        self.arrays[id(inputs.x_t.base)] = inputs.x_t.base
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
    is_told_late: bool = False
    steps_told: list[tuple[int, int]] = field(default_factory=list)
    ticket: Ticket[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.ticket = Ticket(self._tell)
        if isinstance(self.job, DenoiseJob):
            self.job = replace(self.job, on_step=self._follow)

    def _tell(self, ticket: Ticket[Any]) -> None:
        self.times_told += 1

    def _follow(self, sample: int, step: int, x_0_hat: Float32) -> None:
        self.is_told_late |= self.times_told > 0
        self.steps_told.append((sample, step))

    def expect(self, error: type[EngineError] | None) -> None:
        if not self.is_expected_done:
            self.is_expected_done, self.expected_error = True, error


@dataclass(eq=False)
class ExpectedRow:
    claim: Claim
    order: tuple[int, int, int]
    steps_left: int


class ExpectedLane:
    """Rows of one network: the most urgent of them advance."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.num_ticks = 0
        self.rows: list[ExpectedRow] = []
        self.waiting: list[ExpectedRow] = []

    def append(self, claim: Claim, job: DenoiseJob) -> None:
        ticks_alone = len(job.table) * math.ceil(len(job) / self.capacity)
        due = self.num_ticks + STRETCH[job.priority] * ticks_alone
        self.waiting += [
            ExpectedRow(claim, (due, int(claim.mark), i), len(job.table)) for i in range(len(job))
        ]

    def admit(self) -> None:
        everybody = sorted([*self.rows, *self.waiting], key=lambda row: row.order)
        self.rows, self.waiting = everybody[: self.capacity], everybody[self.capacity :]

    def ticks_needed(self, claim: Claim) -> int:
        """By a claim that had all the rows it could use."""
        left = [row.steps_left for row in (*self.rows, *self.waiting) if row.claim is claim]
        return max(max(left), math.ceil(sum(left) / self.capacity))

    def claims(self) -> list[Claim]:
        return list(dict.fromkeys(row.claim for row in (*self.rows, *self.waiting)))

    def drop_done(self) -> None:
        self.rows = [row for row in self.rows if not row.claim.is_expected_done]
        self.waiting = [row for row in self.waiting if not row.claim.is_expected_done]


class Expected:
    """What an engine should do, told with counters only."""

    def __init__(self, max_batch: int, limit: int) -> None:
        self.lanes = {Network.PRIOR: ExpectedLane(max_batch), Network.DENOISER: ExpectedLane(limit)}
        self.max_batch = max_batch
        self.encodings: list[Claim] = []
        self.images_left: dict[Claim, int] = {}

    @property
    def num_active(self) -> int:
        return sum(len(lane.rows) for lane in self.lanes.values())

    @property
    def num_waiting(self) -> int:
        unstarted = sum(len(lane.waiting) for lane in self.lanes.values())
        return unstarted + sum(self.images_left[claim] for claim in self.encodings)

    def submit(self, claim: Claim) -> None:
        count = len(claim.job)
        if count > MAX_QUEUE:
            claim.expect(JobTooLargeError)
        elif self.num_waiting + count > MAX_QUEUE:
            claim.expect(QueueFullError)
        elif isinstance(claim.job, EncodeJob):
            self.encodings.append(claim)
            self.images_left[claim] = len(claim.job)
        else:
            self.lanes[claim.job.network].append(claim, claim.job)

    def fail(self, claim: Claim, error: type[EngineError]) -> None:
        claim.expect(error)
        self._drop_done()

    def tick(self, now: float, runner: FaultyRunner) -> None:
        for claim in self.unfinished():
            if claim.job.deadline <= now:
                self.fail(claim, DeadlineExceededError)
        room = self.max_batch
        for claim in list(self.encodings):
            count = min(room, self.images_left[claim])
            room -= count
            self.images_left[claim] -= count
            if count and (_fault(claim, runner) or not self.images_left[claim]):
                claim.expect(_fault(claim, runner))
        self._drop_done()
        for lane in self.lanes.values():
            lane.admit()
            lane.num_ticks += bool(lane.rows)
            stepped = list(lane.rows)
            for row in stepped:
                row.steps_left -= 1
                fault = _fault(row.claim, runner)
                if fault is not None:
                    self.fail(row.claim, fault)
            lane.rows = [row for row in lane.rows if row.steps_left]
            unfinished = self.unfinished()
            for row in stepped:
                if row.claim not in unfinished:
                    row.claim.expect(None)

    def unfinished(self) -> list[Claim]:
        return [*(claim for lane in self.lanes.values() for claim in lane.claims()), *self.encodings]

    def _drop_done(self) -> None:
        for lane in self.lanes.values():
            lane.drop_done()
        self.encodings = [claim for claim in self.encodings if not claim.is_expected_done]


def _fault(claim: Claim, runner: FaultyRunner) -> type[EngineError] | None:
    if isinstance(claim.job, DenoiseJob) and claim.job.network is Network.PRIOR:
        return None
    if claim.mark in runner.raises_for:
        return StepFailedError
    return NonFiniteOutputError if claim.mark in runner.nan_for else None


class EngineMachine(RuleBasedStateMachine):
    """Events that can happen to an engine; after each, it and the model of it must agree."""

    @initialize(max_batch=st.integers(1, 5), limit=st.integers(1, 5), step_s=st.sampled_from([0.0, 0.25]))
    def start(self, max_batch: int, limit: int, step_s: float) -> None:
        self.runner = FaultyRunner(max_batch=max_batch, step_s=step_s)
        self.core = EngineCore(self.runner, max_queue=MAX_QUEUE, observer=SilentObserver())
        self.core.limit_batch(limit)
        self.expected = Expected(max_batch, min(limit, max_batch))
        self.claims: list[Claim] = []

    @rule(
        count=st.integers(1, MAX_QUEUE + 1),
        table=st.sampled_from(range(len(TABLES))),
        patience=st.sampled_from([math.inf, math.inf, 1.0, 3.0]),
        priority=st.sampled_from(Priority),
        network=st.sampled_from([Network.DENOISER, Network.DENOISER, Network.PRIOR]),
    )
    def submit_samples(
        self, count: int, table: int, patience: float, priority: Priority, network: Network
    ) -> None:
        mark = float(len(self.claims) + 1)
        job = _denoise_job(count, table, mark, network)
        claim = Claim(replace(job, deadline=self.runner.now + patience, priority=priority), mark)
        self.claims.append(claim)
        assert isinstance(claim.job, DenoiseJob)
        self.core.submit_denoise(claim.job, claim.ticket, self.runner.now)
        self.expected.submit(claim)
        if isinstance(claim.ticket.error, DeadlineExceededError):  # its own test tells when this is right
            assert patience < math.inf
            assert self.runner.step_s > 0.0
            self.expected.fail(claim, DeadlineExceededError)

    @rule(count=st.integers(1, 3), patience=st.sampled_from([math.inf, 1.0]))
    def submit_images(self, count: int, patience: float) -> None:
        mark = float(len(self.claims) + 1)
        x_0 = np.random.default_rng(count).uniform(-1, 1, (count, *CONFIG.image.shape)).astype(np.float32)
        x_0[:, 0, 0, 0] = mark
        claim = Claim(EncodeJob(x_0, self.runner.now + patience), mark)
        self.claims.append(claim)
        assert isinstance(claim.job, EncodeJob)
        self.core.submit_encode(claim.job, claim.ticket, self.runner.now)
        self.expected.submit(claim)

    @rule(times=st.integers(1, 4), seconds=st.sampled_from([0.0, 0.5, 1.0]))
    def tick(self, times: int, seconds: float) -> None:
        for _ in range(times):
            self.runner.now += seconds
            started_at = self.runner.now
            self.core.tick(lambda: self.runner.now)
            self.accept_what_was_given_up(started_at)
            self.expected.tick(started_at, self.runner)

    def accept_what_was_given_up(self, now: float) -> None:
        """Jobs may fail before their deadline, if there is no time to do them even without the others."""
        for lane in self.expected.lanes.values():
            for claim in lane.claims():
                if isinstance(claim.ticket.error, DeadlineExceededError) and claim.job.deadline > now:
                    assert now + lane.ticks_needed(claim) * self.runner.step_s > claim.job.deadline
                    self.expected.fail(claim, DeadlineExceededError)

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
        assert self.core.num_active_samples == self.expected.num_active
        assert self.core.num_waiting_samples == self.expected.num_waiting
        assert self.core.has_work == bool(self.expected.unfinished())

    @invariant()
    def rows_live_in_one_array_for_ever(self) -> None:
        assert len(self.runner.arrays) <= 1

    def teardown(self) -> None:
        for _ in range(MAX_TICKS):
            if not self.core.has_work:
                break
            self.tick(1, 0.0)
        self.no_row_and_no_place_in_the_queue_leaks()
        self.tickets_are_told_once_and_only_when_they_should_be()
        for claim in self.claims:
            assert claim.times_told == 1
            assert not claim.is_told_late
            if claim.expected_error is None:
                if isinstance(claim.job, DenoiseJob):
                    samples, steps = range(len(claim.job)), range(1, len(claim.job.table) + 1)
                    assert sorted(claim.steps_told) == [(i, step) for i in samples for step in steps]
                np.testing.assert_allclose(_outcome(claim), _solo(claim), rtol=1e-4, atol=1e-4)


TestEngine = EngineMachine.TestCase
TestEngine.settings = settings(max_examples=200, stateful_step_count=25, deadline=None, database=None)


def _denoise_job(count: int, table: int, mark: float, network: Network) -> DenoiseJob:
    rng = np.random.default_rng([table, int(mark)])
    is_prior = network is Network.PRIOR
    shape = (CONFIG.num_prototypes,) if is_prior else CONFIG.image.shape
    x = rng.standard_normal((count, *shape), dtype=np.float32)
    activations = rng.uniform(0.0, 3.0, (count, 0 if is_prior else CONFIG.num_prototypes)).astype(np.float32)
    activations[:, :1] = mark
    return DenoiseJob(x, activations, TABLES[table], tuple(range(count)), network=network)


def _outcome(claim: Claim) -> Float32:
    result = claim.ticket.result
    assert result is not None
    found: Float32 = result.activations if isinstance(claim.job, EncodeJob) else result.x
    return found


def _solo(claim: Claim) -> Float32:
    """What each sample of the job becomes in an engine of its own."""
    samples = []
    for i in range(len(claim.job)):
        runner = FakeRunner(CONFIG, max_batch=1, has_prior=True)
        core = EngineCore(runner, max_queue=1, observer=SilentObserver())
        part = slice(i, i + 1)
        job = claim.job
        if isinstance(job, EncodeJob):
            alone = Claim(EncodeJob(job.x_0[part]), claim.mark)
            core.submit_encode(EncodeJob(job.x_0[part]), alone.ticket, 0.0)
        else:
            only = DenoiseJob(
                job.x[part], job.activations[part], job.table, job.noise_seeds[part], network=job.network
            )
            alone = Claim(only, claim.mark)
            core.submit_denoise(only, alone.ticket, 0.0)
        while core.has_work:
            core.tick(lambda: 0.0)
        samples.append(_outcome(alone))
    return np.concatenate(samples)
