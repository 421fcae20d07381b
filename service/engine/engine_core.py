"""The state machine of the engine: what waits, what runs, and what happens at each tick."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.engine.denoising_batch import DenoisingBatch, Row
from service.engine.errors import (
    DeadlineExceededError,
    EngineError,
    JobCancelledError,
    JobTooLargeError,
    NonFiniteOutputError,
    OutOfMemoryError,
    QueueFullError,
    StepFailedError,
)
from service.engine.isolation import BatchFailures, run_isolated
from service.engine.jobs import (
    DenoiseJob,
    DenoiseResult,
    EncodeJob,
    EncodeResult,
    Ticket,
    Timing,
)
from service.engine.observer import EngineObserver
from service.engine.runner import Runner, StepInputs, StepOutputs

log = logging.getLogger(__name__)

Float32 = npt.NDArray[np.float32]


@dataclass(eq=False)
class _Denoising:
    """A denoise job with its ticket; `num_admitted` and `num_done` count its samples."""

    job: DenoiseJob
    ticket: Ticket[DenoiseResult]
    submitted_at: float
    x: Float32
    started_at: float = 0.0
    num_admitted: int = 0
    num_done: int = 0


@dataclass(eq=False)
class _Encoding:
    job: EncodeJob
    ticket: Ticket[EncodeResult]
    submitted_at: float


class EngineCore:
    """Waiting jobs, rows in flight, and `tick()`. Knows neither threads nor clocks: times are handed in.

    `max_queue` bounds the samples that wait, of both kinds together. Every ticket is resolved exactly
    once, with a result or with an EngineError.
    """

    def __init__(self, runner: Runner, *, max_queue: int, observer: EngineObserver) -> None:
        self._runner = runner
        self._observer = observer
        self._max_queue = max_queue
        self._batch = DenoisingBatch(runner.config, runner.max_batch)
        self._step_limit = runner.max_batch
        self._encode_limit = runner.max_batch
        self._waiting: deque[_Denoising] = deque()
        self._encodings: deque[_Encoding] = deque()

    @property
    def has_work(self) -> bool:
        return bool(self._batch.rows or self._waiting or self._encodings)

    @property
    def num_active_samples(self) -> int:
        return len(self._batch)

    @property
    def num_waiting_samples(self) -> int:
        unstarted = sum(len(item.job) - item.num_admitted for item in self._waiting)
        return unstarted + sum(len(item.job) for item in self._encodings)

    def submit_denoise(self, job: DenoiseJob, ticket: Ticket[DenoiseResult], now: float) -> None:
        """Queue a job; its ticket fails at once where there is no room for it."""
        if self._has_room(job, ticket):
            self._waiting.append(_Denoising(job, ticket, now, np.empty_like(job.x)))

    def submit_encode(self, job: EncodeJob, ticket: Ticket[EncodeResult], now: float) -> None:
        """Queue images to encode; the ticket fails at once where there is no room for them."""
        if self._has_room(job, ticket):
            self._encodings.append(_Encoding(job, ticket, now))

    def cancel(self, ticket: Ticket[DenoiseResult] | Ticket[EncodeResult]) -> None:
        """Forget a job and free its rows at once; its neighbours are not touched."""
        ticket.fail(JobCancelledError("the request was cancelled"))
        self._drop_resolved()

    def abort(self, error: EngineError) -> None:
        """Fail everything that waits or runs."""
        for item in self._unfinished():
            item.ticket.fail(error)
        self._drop_resolved()

    def tick(self, now: Callable[[], float]) -> None:
        """Encode what waits, admit into free rows, take one step over all rows, retire finished rows."""
        self._expire(now())
        self._encode_waiting(now)
        self._admit(now())
        if self._batch.rows:
            self._step()
            self._retire(now())
        self._report_occupancy()

    def _has_room(
        self, job: DenoiseJob | EncodeJob, ticket: Ticket[DenoiseResult] | Ticket[EncodeResult]
    ) -> bool:
        count, waiting = len(job), self.num_waiting_samples
        if job.is_continuation:
            return True
        if count > self._max_queue:
            ticket.fail(JobTooLargeError(f"{count} samples can never fit a queue of {self._max_queue}"))
        elif waiting + count > self._max_queue:
            ticket.fail(QueueFullError(f"{waiting} of {self._max_queue} places are taken"))
        return not ticket.is_resolved

    def _expire(self, now: float) -> None:
        for item in self._unfinished():
            if item.job.deadline <= now:
                item.ticket.fail(DeadlineExceededError("the deadline passed before the job was done"))
        self._drop_resolved()

    def _encode_waiting(self, now: Callable[[], float]) -> None:
        if not self._encodings:
            return
        items = list(self._encodings)  # kept until resolved, so that `abort` reaches them
        started_at = now()
        x_0 = np.concatenate([item.job.x_0 for item in items])
        height, width = self._runner.config.grid_shape
        activations = np.empty((len(x_0), self._runner.config.num_prototypes), np.float32)
        maps = np.empty((*activations.shape, height, width), np.float32)

        def encode(part: slice) -> None:
            activations[part], maps[part] = self._runner.encode(x_0[part])

        failures = run_isolated(encode, len(x_0), self._encode_limit)
        self._encode_limit = self._shrunk(self._encode_limit, failures)
        finite = np.asarray(np.isfinite(activations).all(axis=1))
        finished_at = now()
        start = 0
        for item in items:
            part = slice(start, start + len(item.job))
            start = part.stop
            error = _failure(failures.errors, finite, range(part.start, part.stop))
            if error is not None:
                item.ticket.fail(error)
                continue
            timing = Timing(started_at - item.submitted_at, finished_at - started_at)
            item.ticket.resolve(EncodeResult(activations[part], maps[part], timing))
        self._encodings.clear()

    def _admit(self, now: float) -> None:
        while self._waiting and self._batch.num_free:
            item = self._waiting[0]
            if item.num_admitted == 0:
                item.started_at = now
            i = item.num_admitted
            row = Row(item, i, item.job.table, item.job.noise_seeds[i])
            self._batch.admit(row, item.job.x[i], item.job.activations[i])
            item.num_admitted += 1
            if item.num_admitted == len(item.job):
                self._waiting.popleft()

    def _step(self) -> None:
        inputs = self._batch.inputs()
        count = len(inputs)
        outputs = StepOutputs(*(np.empty_like(inputs.x_t) for _ in range(3)))
        self._observer.step_started(count, self._runner.bucket(min(count, self._step_limit)))

        def step(part: slice) -> None:
            self._run_step(inputs.rows(part), outputs, part)

        failures = run_isolated(step, count, self._step_limit)
        self._step_limit = self._shrunk(self._step_limit, failures)
        wasted = sum(_owner(row).ticket.abandoned for row in self._batch.rows)
        self._observer.step_finished(count, wasted)
        finite = np.asarray(np.isfinite(outputs.x_next).all(axis=(1, 2, 3)))
        for i, row in enumerate(self._batch.rows):
            error = _failure(failures.errors, finite, range(i, i + 1))
            if error is not None:
                _owner(row).ticket.fail(error)
        self._batch.advance(outputs)
        self._drop_resolved()

    def _run_step(self, inputs: StepInputs, outputs: StepOutputs, part: slice) -> None:
        result = self._runner.denoise_step(inputs)
        outputs.x_next[part] = result.x_next
        outputs.memory_next[part] = result.memory_next
        outputs.x_0_hat[part] = result.x_0_hat

    def _shrunk(self, limit: int, failures: BatchFailures) -> int:
        if failures.out_of_memory_at is None:
            return limit
        self._observer.ran_out_of_memory(failures.out_of_memory_at)
        smaller = max(1, failures.out_of_memory_at // 2)
        log.warning("out of memory at batch %d; going on with %d", failures.out_of_memory_at, smaller)
        return min(limit, smaller)

    def _retire(self, now: float) -> None:
        done = {i for i, row in enumerate(self._batch.rows) if row.is_done}
        for i in done:
            row = self._batch.rows[i]
            item = _owner(row)
            item.x[row.index] = self._batch.x(i)
            item.num_done += 1
            if item.num_done == len(item.job):
                timing = Timing(item.started_at - item.submitted_at, now - item.started_at)
                item.ticket.resolve(DenoiseResult(item.x, timing))
                self._observer.job_finished(timing.queue_s, timing.inference_s)
        self._batch.release(done)

    def _drop_resolved(self) -> None:
        self._waiting = deque(item for item in self._waiting if not item.ticket.is_resolved)
        self._encodings = deque(item for item in self._encodings if not item.ticket.is_resolved)
        self._batch.release({i for i, row in enumerate(self._batch.rows) if _owner(row).ticket.is_resolved})

    def _unfinished(self) -> list[_Denoising | _Encoding]:
        return [*self._waiting, *self._owners(), *self._encodings]

    def _owners(self) -> list[_Denoising]:
        return list({id(row.owner): _owner(row) for row in self._batch.rows}.values())

    def _report_occupancy(self) -> None:
        unstarted = sum(item.num_admitted == 0 for item in self._waiting)
        running = len(self._owners())
        self._observer.occupancy(running, unstarted + len(self._encodings), len(self._batch))


def _owner(row: Row) -> _Denoising:
    assert isinstance(row.owner, _Denoising)
    return row.owner


def _failure(
    errors: dict[int, Exception], finite: npt.NDArray[np.bool_], positions: range
) -> EngineError | None:
    for i in positions:
        if i in errors:
            log.error("the network failed for one sample", exc_info=errors[i])
            if isinstance(errors[i], OutOfMemoryError):
                return OutOfMemoryError("the device has no memory for even one sample")
            return StepFailedError(f"the network failed: {type(errors[i]).__name__}")
        if not finite[i]:
            return NonFiniteOutputError("the network gave a value that is not finite")
    return None
