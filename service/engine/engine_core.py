"""The state machine of the engine: what waits, what runs, and what happens at each tick."""

from __future__ import annotations

from collections.abc import Callable

from service.engine.denoising_batch import DenoisingBatch
from service.engine.encoding_queue import Encoding, EncodingQueue
from service.engine.errors import (
    EngineError,
    JobCancelledError,
    JobTooLargeError,
    QueueFullError,
    StepFailedError,
)
from service.engine.job_record import JobRecorder
from service.engine.jobs import DenoiseJob, DenoiseResult, EncodeJob, EncodeResult, Network, Ticket
from service.engine.lane import Denoising, Lane
from service.engine.observer import EngineObserver, SilentObserver
from service.engine.runner import Runner


class EngineCore:
    """Waiting jobs, rows in flight, and `tick()`. Knows neither threads nor clocks: times are handed in.

    `max_queue` bounds the samples that wait, of both kinds together. Every ticket is resolved exactly
    once, with a result or with an EngineError. `recorder` is for whoever submits jobs; None records none.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        max_queue: int,
        observer: EngineObserver,
        recorder: JobRecorder | None = None,
    ) -> None:
        self.recorder = recorder
        self._runner = runner
        self._observer = observer
        self._max_queue = max_queue
        config, rows = runner.config, runner.max_batch
        m = config.num_prototypes
        self._encodings = EncodingQueue(
            runner.encode,
            num_prototypes=m,
            grid_shape=config.grid_shape,
            max_batch=rows,
            observer=observer,
        )
        images = DenoisingBatch(config.image.shape, m, rows)
        self._lanes = {Network.DENOISER: Lane(runner.denoise_step, runner.bucket, images, observer)}
        if runner.has_prior:
            # The step metrics are the denoiser's: a step of the prior costs about a hundredth of one.
            latents = DenoisingBatch((m,), 0, rows)
            lane = Lane(runner.prior_step, runner.bucket, latents, SilentObserver())
            self._lanes = {Network.PRIOR: lane, **self._lanes}

    @property
    def has_work(self) -> bool:
        return self._encodings.num_waiting_jobs > 0 or any(lane.has_work for lane in self._lanes.values())

    @property
    def num_active_samples(self) -> int:
        return sum(lane.num_active_samples for lane in self._lanes.values())

    @property
    def num_waiting_samples(self) -> int:
        unstarted = sum(lane.num_waiting_samples for lane in self._lanes.values())
        return unstarted + self._encodings.num_waiting_images

    @property
    def num_failed_in_a_row(self) -> int:
        """Network calls since one that did anything for anybody, of the network that failed most often."""
        lanes = (lane.num_failed_in_a_row for lane in self._lanes.values())
        return max(self._encodings.num_failed_in_a_row, *lanes)

    def limit_batch(self, rows: int) -> None:
        """Take denoise steps over at most that many rows from now on, 1 … the runner's largest batch."""
        self._lanes[Network.DENOISER].limit_batch(rows)

    def seconds_of(self, steps: int, now: float) -> float | None:
        """A floor for how long that many denoise steps of one sample take; None without a measurement.

        May be asked from any thread.
        """
        return self._lanes[Network.DENOISER].seconds_of(steps, now)

    def submit_denoise(self, job: DenoiseJob, ticket: Ticket[DenoiseResult], now: float) -> None:
        """Queue a job.

        Its ticket fails at once where there is no room for it, no such network, or no hope to be done by
        its deadline.
        """
        lane = self._lanes.get(job.network)
        if lane is None:
            ticket.fail(StepFailedError(f"this model has no {job.network}"))
        elif self._admit(job, ticket):
            lane.append(job, ticket, now)

    def submit_encode(self, job: EncodeJob, ticket: Ticket[EncodeResult], now: float) -> None:
        """Queue images to encode; the ticket fails at once where there is no room for them."""
        is_continuation = job.admission.is_taken
        if self._admit(job, ticket):
            self._encodings.append(job, ticket, now, is_continuation=is_continuation)

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
        """Encode some of what waits; for each network admit into free rows, step, retire finished rows."""
        self._expire(now())
        self._encodings.tick(now)
        for lane in self._lanes.values():
            lane.tick(now)
        self._report_occupancy()

    def _admit(
        self, job: DenoiseJob | EncodeJob, ticket: Ticket[DenoiseResult] | Ticket[EncodeResult]
    ) -> bool:
        """Whether the job's request is taken, by now or before; else its ticket fails."""
        count, waiting = len(job), self.num_waiting_samples
        if job.admission.is_taken:
            return True
        if count > self._max_queue:
            ticket.fail(JobTooLargeError(f"{count} samples can never fit a queue of {self._max_queue}"))
        elif waiting + count > self._max_queue:
            ticket.fail(QueueFullError(f"{waiting} of {self._max_queue} places are taken"))
        job.admission.is_taken = not ticket.is_resolved
        return job.admission.is_taken

    def _expire(self, now: float) -> None:
        for lane in self._lanes.values():
            lane.expire(now)
        self._encodings.expire(now)

    def _drop_resolved(self) -> None:
        """After jobs were resolved outside a tick: nobody may come to tick what is left."""
        self._encodings.drop_resolved()
        for lane in self._lanes.values():
            lane.drop_resolved()
        self._report_occupancy()

    def _unfinished(self) -> list[Denoising | Encoding]:
        denoisings = [item for lane in self._lanes.values() for item in lane.unfinished]
        return [*denoisings, *self._encodings.unfinished]

    def _report_occupancy(self) -> None:
        lanes = self._lanes.values()
        running = sum(lane.num_running_jobs for lane in lanes)
        unstarted = sum(lane.num_waiting_jobs for lane in lanes)
        self._observer.occupancy(
            running, unstarted + self._encodings.num_waiting_jobs, self.num_active_samples
        )
