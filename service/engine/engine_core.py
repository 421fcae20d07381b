"""The state machine of the engine: what waits, what runs, and what happens at each tick."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from service.engine.denoising_batch import DenoisingBatch
from service.engine.errors import (
    DeadlineExceededError,
    EngineError,
    JobCancelledError,
    JobTooLargeError,
    QueueFullError,
    StepFailedError,
)
from service.engine.isolation import failure_at, run_isolated
from service.engine.jobs import DenoiseJob, DenoiseResult, EncodeJob, EncodeResult, Network, Ticket, Timing
from service.engine.lane import Denoising, Lane
from service.engine.memory_limit import MemoryLimit
from service.engine.observer import EngineObserver, SilentObserver
from service.engine.runner import Runner


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
        self._encode_limit = MemoryLimit(runner.max_batch, observer)
        self._encodings: deque[_Encoding] = deque()
        config, rows = runner.config, runner.max_batch
        m = config.num_prototypes
        images = DenoisingBatch(config.image.shape, m, rows)
        self._lanes = {Network.DENOISER: Lane(runner.denoise_step, runner.bucket, images, observer)}
        if runner.has_prior:
            # The step metrics are the denoiser's: a step of the prior costs about a hundredth of one.
            latents = DenoisingBatch((m,), 0, rows)
            lane = Lane(runner.prior_step, runner.bucket, latents, SilentObserver())
            self._lanes = {Network.PRIOR: lane, **self._lanes}

    @property
    def has_work(self) -> bool:
        return bool(self._encodings) or any(lane.has_work for lane in self._lanes.values())

    @property
    def num_active_samples(self) -> int:
        return sum(lane.num_active_samples for lane in self._lanes.values())

    @property
    def num_waiting_samples(self) -> int:
        unstarted = sum(lane.num_waiting_samples for lane in self._lanes.values())
        return unstarted + sum(len(item.job) for item in self._encodings)

    def limit_batch(self, rows: int) -> None:
        """Take denoise steps over at most that many rows from now on, 1 … the runner's largest batch."""
        self._lanes[Network.DENOISER].limit_batch(rows)

    def submit_denoise(self, job: DenoiseJob, ticket: Ticket[DenoiseResult], now: float) -> None:
        """Queue a job.

        Its ticket fails at once where there is no room for it, no such network, or no hope to be done by
        its deadline.
        """
        lane = self._lanes.get(job.network)
        if lane is None:
            ticket.fail(StepFailedError(f"this model has no {job.network}"))
        elif self._has_room(job, ticket):
            lane.append(job, ticket, now)

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
        """Encode what waits; for each network admit into free rows, take one step, retire finished rows."""
        self._expire(now())
        self._encode_waiting(now)
        for lane in self._lanes.values():
            lane.tick(now)
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
        for lane in self._lanes.values():
            lane.expire(now)
        for item in self._encodings:
            if item.job.deadline <= now:
                item.ticket.fail(DeadlineExceededError("the deadline passed before the job was done"))
        self._encodings = deque(item for item in self._encodings if not item.ticket.is_resolved)

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

        failures = run_isolated(encode, len(x_0), self._encode_limit.rows)
        self._encode_limit.observe(failures)
        finite = np.asarray(np.isfinite(activations).all(axis=1))
        finished_at = now()
        start = 0
        for item in items:
            part = slice(start, start + len(item.job))
            start = part.stop
            error = failure_at(failures, finite, range(part.start, part.stop))
            if error is not None:
                item.ticket.fail(error)
                continue
            timing = Timing(started_at - item.submitted_at, finished_at - started_at)
            item.ticket.resolve(EncodeResult(activations[part], maps[part], timing))
        self._encodings.clear()

    def _drop_resolved(self) -> None:
        """After jobs were resolved outside a tick: nobody may come to tick what is left."""
        self._encodings = deque(item for item in self._encodings if not item.ticket.is_resolved)
        for lane in self._lanes.values():
            lane.drop_resolved()
        self._report_occupancy()

    def _unfinished(self) -> list[Denoising | _Encoding]:
        denoisings = [item for lane in self._lanes.values() for item in lane.unfinished]
        return [*denoisings, *self._encodings]

    def _report_occupancy(self) -> None:
        lanes = self._lanes.values()
        running = sum(lane.num_running_jobs for lane in lanes)
        unstarted = sum(lane.num_waiting_jobs for lane in lanes)
        self._observer.occupancy(running, unstarted + len(self._encodings), self.num_active_samples)
