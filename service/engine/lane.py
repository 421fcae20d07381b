"""One network's jobs: the samples that wait for a row, and the batch of those that have one."""

from __future__ import annotations

import logging
import math
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from service.engine.denoising_batch import DenoisingBatch, Row
from service.engine.errors import DeadlineExceededError
from service.engine.isolation import BatchFailures, failure_at, run_isolated
from service.engine.jobs import DenoiseJob, DenoiseResult, Ticket, Timing
from service.engine.memory_limit import MemoryLimit
from service.engine.observer import EngineObserver
from service.engine.runner import StepInputs, StepOutputs
from service.engine.step_times import StepTimes
from service.engine.urgency import due_tick

Float32 = npt.NDArray[np.float32]

log = logging.getLogger(__name__)

_order = attrgetter("order")


@dataclass(eq=False)
class Denoising:
    """A denoise job with its ticket.

    `x` and `memory` hold the finished samples, `num_done` counts them, and `num_steps_left` the steps of
    the others; at `give_up_at` it is to be checked whether the job can still meet its deadline.
    `started_at` is None before the first row.
    """

    job: DenoiseJob
    ticket: Ticket[DenoiseResult]
    submitted_at: float
    x: Float32
    memory: Float32
    num_steps_left: int
    give_up_at: float
    started_at: float | None = None
    num_done: int = 0


class Lane:
    """Jobs of one network, `step`, whose batch shares no call with another network's.

    `bucket` says how many rows are computed for a number of rows; `batch` is empty at first. Who has the
    rows is decided by `service.engine.urgency`; its clock is `num_ticks`, the steps taken so far.
    """

    def __init__(
        self,
        step: Callable[[StepInputs], StepOutputs],
        bucket: Callable[[int], int],
        batch: DenoisingBatch,
        observer: EngineObserver,
    ) -> None:
        self._network = step
        self._bucket = bucket
        self._batch = batch
        self._observer = observer
        self._capacity = batch.capacity
        self._outputs = batch.empty_outputs()  # once: a step's arrays are too large to be had for nothing
        self._memory_limit = MemoryLimit(batch.capacity, observer)
        self._step_times = StepTimes()
        self._jobs: list[Denoising] = []
        self._waiting: list[Row] = []  # the most urgent first
        self._num_ticks = 0
        self._sequence = count()
        self.num_failed_in_a_row = 0
        """Steps since one in which the network did anything for anybody."""

    @property
    def has_work(self) -> bool:
        return bool(self._jobs)

    @property
    def num_active_samples(self) -> int:
        return len(self._batch)

    @property
    def num_waiting_samples(self) -> int:
        """Samples without a row, paused ones among them."""
        return len(self._waiting)

    @property
    def num_running_jobs(self) -> int:
        return len({id(row.owner) for row in self._batch.rows})

    @property
    def num_waiting_jobs(self) -> int:
        """Jobs that have no row now."""
        return len(self._jobs) - self.num_running_jobs

    @property
    def unfinished(self) -> list[Denoising]:
        return list(self._jobs)

    def limit_batch(self, rows: int) -> None:
        """Use at most that many of the batch's rows from now on."""
        self._capacity = max(1, min(rows, self._batch.capacity))

    def seconds_of(self, steps: int, now: float) -> float | None:
        """A floor for how long that many steps of one sample take; None without a measurement."""
        step_s = self._step_times.at_least(self._bucket(1), now)
        return None if step_s is None else step_s * steps

    def append(self, job: DenoiseJob, ticket: Ticket[DenoiseResult], now: float) -> None:
        """Let a job wait for rows; its ticket fails at once when its deadline is out of reach."""
        due, sequence = due_tick(job, self._num_ticks, self._capacity), next(self._sequence)
        x, memory = np.empty_like(job.x), np.empty_like(job.x)
        item = Denoising(job, ticket, now, x, memory, len(job) * len(job.table), job.deadline)
        if job.deadline < math.inf:
            self._check(item, now, ahead_s=self._seconds_ahead((due, sequence), now))
            if ticket.is_resolved:
                return
        rows = [
            Row(
                item,
                i,
                job.table,
                job.noise_seeds[i],
                job.activations[i],
                job.x[i],
                None if job.memory is None else job.memory[i],
                (due, sequence, i),
            )
            for i in range(len(job))
        ]
        place = bisect_left(self._waiting, rows[0].order, key=_order)
        self._waiting[place:place] = rows  # no other order lies between those of one job
        self._jobs.append(item)

    def expire(self, now: float) -> None:
        """Fail the jobs that can no longer meet their deadline, and free their rows."""
        doubtful = [item for item in self._jobs if item.give_up_at <= now]
        for item in doubtful:
            self._check(item, now)
        if any(item.ticket.is_resolved for item in doubtful):
            self.drop_resolved()

    def tick(self, now: Callable[[], float]) -> None:
        """Give the rows to the most urgent samples, take one step over all rows, retire finished rows."""
        self._admit(now())
        if self._batch.rows:
            self._step(now)
            self._retire(now())

    def drop_resolved(self) -> None:
        """Forget jobs whose ticket is resolved, and free their rows."""
        self._jobs = [item for item in self._jobs if not item.ticket.is_resolved]
        self._waiting = [row for row in self._waiting if not _owner(row).ticket.is_resolved]
        self._batch.release({i for i, row in enumerate(self._batch.rows) if _owner(row).ticket.is_resolved})

    def _admit(self, now: float) -> None:
        num_preempted = 0
        while self._waiting:
            if len(self._batch) >= self._capacity:
                rows = self._batch.rows
                latest = max(range(len(rows)), key=lambda i: rows[i].order)
                if rows[latest].order < self._waiting[0].order:
                    break
                insort(self._waiting, self._batch.pause(latest), key=_order)
                num_preempted += 1
            row = self._waiting.pop(0)
            item = _owner(row)
            if item.started_at is None:
                item.started_at = now
                item.ticket.start()
                if item.job.deadline < math.inf:
                    item.give_up_at = now  # watched from here on
            self._batch.admit(row)
        if num_preempted:
            self._observer.preempted(num_preempted)

    def _step(self, now: Callable[[], float]) -> None:
        inputs = self._batch.inputs()
        num_rows = len(inputs)
        outputs = self._outputs.first(num_rows)
        bucket = self._bucket(min(num_rows, self._memory_limit.rows))
        self._observer.step_started(num_rows, bucket)

        def step(part: slice) -> None:
            result = self._network(inputs.rows(part))
            outputs.x_next[part] = result.x_next
            outputs.memory_next[part] = result.memory_next
            outputs.x_0_hat[part] = result.x_0_hat

        started_at = now()
        failures = run_isolated(step, num_rows, self._memory_limit.rows)
        finished_at = now()
        if not failures.any and num_rows <= self._memory_limit.rows:
            self._step_times.add(bucket, finished_at - started_at, finished_at)
        self._memory_limit.observe(failures)
        self.num_failed_in_a_row = self.num_failed_in_a_row + 1 if len(failures.errors) == num_rows else 0
        wasted = sum(_owner(row).ticket.abandoned for row in self._batch.rows)
        self._observer.step_finished(num_rows, wasted)
        self._num_ticks += 1
        self._batch.advance(outputs)
        self._judge(outputs, failures)

    def _judge(self, outputs: StepOutputs, failures: BatchFailures) -> None:
        """Fail the jobs of rows that failed; tell the others that a step is done."""
        finite = np.asarray(np.isfinite(outputs.x_next).reshape(len(outputs.x_next), -1).all(axis=1))
        if not failures.any and finite.all():
            for i, row in enumerate(self._batch.rows):
                item = _owner(row)
                item.num_steps_left -= 1
                if item.job.on_step is not None:
                    _tell(item.job, row, outputs.x_0_hat[i])
            return
        any_failed = False
        for i, row in enumerate(self._batch.rows):
            item = _owner(row)
            item.num_steps_left -= 1
            error = failure_at(failures, finite, range(i, i + 1))
            if error is not None:
                item.ticket.fail(error)
                any_failed = True
            elif not item.ticket.is_resolved:
                _tell(item.job, row, outputs.x_0_hat[i])
        if any_failed:
            self.drop_resolved()

    def _retire(self, now: float) -> None:
        done = {i for i, row in enumerate(self._batch.rows) if row.is_done}
        any_resolved = False
        for i in done:
            row = self._batch.rows[i]
            item = _owner(row)
            item.x[row.index], item.memory[row.index] = self._batch.state(i)
            item.num_done += 1
            if item.num_done == len(item.job):
                assert item.started_at is not None
                timing = Timing(item.started_at - item.submitted_at, now - item.started_at)
                item.ticket.resolve(DenoiseResult(item.x, item.memory, timing))
                any_resolved = True
                self._observer.job_finished(timing.queue_s, timing.inference_s)
        self._batch.release(done)
        if any_resolved:
            self.drop_resolved()

    def _check(self, item: Denoising, now: float, ahead_s: float = 0.0) -> None:
        """Fail a job that cannot meet its deadline; otherwise note when to look at it again."""
        deadline = item.job.deadline
        left_s, needed_s = deadline - now, self._seconds_left(item, now)
        if left_s <= 0.0:
            item.ticket.fail(DeadlineExceededError("the deadline passed before the job was done"))
        elif ahead_s + (needed_s or 0.0) > left_s:
            item.ticket.fail(
                DeadlineExceededError(
                    f"the job needs about {ahead_s + (needed_s or 0.0):.3g} s, "
                    f"{left_s:.3g} s are left before its deadline"
                )
            )
        elif needed_s is None:  # a running job will be measured soon; those that wait are too many to watch
            item.give_up_at = now + left_s / 2 if item.started_at is None else now
        else:
            item.give_up_at = deadline - needed_s

    def _seconds_ahead(self, order: tuple[int, ...], now: float) -> float:
        """A floor for how long more urgent samples keep every row; 0 where that was not measured lately.

        Somebody of that order gets a row when fewer than `capacity` more urgent samples are left: all but
        the `capacity` - 1 longest of them must be done by then, and each does one step per tick.
        """
        step_s = self._step_times.at_least(self._bucket(self._capacity), now)
        if step_s is None:
            return 0.0
        more_urgent = [row for row in (*self._batch.rows, *self._waiting) if row.order < order]
        steps_left = sorted(row.num_steps_left for row in more_urgent)
        first = steps_left[: max(0, len(steps_left) - self._capacity + 1)]
        if not first:
            return 0.0
        return step_s * max(first[-1], math.ceil(sum(first) / self._capacity))

    def _seconds_left(self, item: Denoising, now: float) -> float | None:
        """A floor for how long a job takes that has all the rows it can use; None without a measurement."""
        num_rows = min(self._capacity, len(item.job) - item.num_done)
        step_s = self._step_times.at_least(self._bucket(num_rows), now)
        return None if step_s is None else step_s * math.ceil(item.num_steps_left / num_rows)


def _tell(job: DenoiseJob, row: Row, x_0_hat: Float32) -> None:
    """Give a copy of x_0_hat (C, H, W) to whoever follows the job."""
    if job.on_step is not None:
        try:
            job.on_step(row.index, row.step, x_0_hat.copy())
        except Exception:
            log.exception("whoever follows a job's progress failed; the job goes on")


def _owner(row: Row) -> Denoising:
    assert isinstance(row.owner, Denoising)
    return row.owner
