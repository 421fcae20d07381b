"""One network's jobs: those that wait for a row, and the batch of those that have one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.engine.denoising_batch import DenoisingBatch, Row
from service.engine.isolation import failure_at, run_isolated, shrunk_limit
from service.engine.jobs import DenoiseJob, DenoiseResult, Ticket, Timing
from service.engine.observer import EngineObserver
from service.engine.runner import StepInputs, StepOutputs

Float32 = npt.NDArray[np.float32]


@dataclass(eq=False)
class Denoising:
    """A denoise job with its ticket; `num_admitted` and `num_done` count its samples."""

    job: DenoiseJob
    ticket: Ticket[DenoiseResult]
    submitted_at: float
    x: Float32
    started_at: float = 0.0
    num_admitted: int = 0
    num_done: int = 0


class Lane:
    """Jobs of one network, `step`, whose batch shares no call with another network's.

    `bucket` says how many rows are computed for a number of rows; `batch` is empty at first.
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
        self._limit = batch.capacity
        self._waiting: deque[Denoising] = deque()

    @property
    def has_work(self) -> bool:
        return bool(self._batch.rows or self._waiting)

    @property
    def num_active_samples(self) -> int:
        return len(self._batch)

    @property
    def num_waiting_samples(self) -> int:
        return sum(len(item.job) - item.num_admitted for item in self._waiting)

    @property
    def num_running_jobs(self) -> int:
        return len(self._owners())

    @property
    def num_waiting_jobs(self) -> int:
        """Jobs that have no row yet."""
        return sum(item.num_admitted == 0 for item in self._waiting)

    @property
    def unfinished(self) -> list[Denoising]:
        return [*self._waiting, *self._owners()]

    def append(self, job: DenoiseJob, ticket: Ticket[DenoiseResult], now: float) -> None:
        self._waiting.append(Denoising(job, ticket, now, np.empty_like(job.x)))

    def tick(self, now: Callable[[], float]) -> None:
        """Admit into free rows, take one step over all rows, retire finished rows."""
        self._admit(now())
        if self._batch.rows:
            self._step()
            self._retire(now())

    def drop_resolved(self) -> None:
        """Forget jobs whose ticket is resolved, and free their rows."""
        self._waiting = deque(item for item in self._waiting if not item.ticket.is_resolved)
        self._batch.release({i for i, row in enumerate(self._batch.rows) if _owner(row).ticket.is_resolved})

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
        self._observer.step_started(count, self._bucket(min(count, self._limit)))

        def step(part: slice) -> None:
            result = self._network(inputs.rows(part))
            outputs.x_next[part] = result.x_next
            outputs.memory_next[part] = result.memory_next
            outputs.x_0_hat[part] = result.x_0_hat

        failures = run_isolated(step, count, self._limit)
        self._limit = shrunk_limit(self._limit, failures, self._observer)
        wasted = sum(_owner(row).ticket.abandoned for row in self._batch.rows)
        self._observer.step_finished(count, wasted)
        finite = np.asarray(np.isfinite(outputs.x_next).reshape(count, -1).all(axis=1))
        for i, row in enumerate(self._batch.rows):
            error = failure_at(failures, finite, range(i, i + 1))
            if error is not None:
                _owner(row).ticket.fail(error)
        self._batch.advance(outputs)
        self.drop_resolved()

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

    def _owners(self) -> list[Denoising]:
        return list({id(row.owner): _owner(row) for row in self._batch.rows}.values())


def _owner(row: Row) -> Denoising:
    assert isinstance(row.owner, Denoising)
    return row.owner
