"""The images that wait to be encoded, and the small batches in which they are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from service.engine.errors import DeadlineExceededError
from service.engine.isolation import failure_at, run_isolated
from service.engine.jobs import EncodeJob, EncodeResult, Ticket, Timing
from service.engine.memory_limit import MemoryLimit
from service.engine.observer import EngineObserver

Float32 = npt.NDArray[np.float32]

Encode = Callable[[Float32], tuple[Float32, Float32]]
"""Activations (B, m) and similarity maps (B, m, h, w) of images x_0 (B, C, H, W)."""


@dataclass(eq=False)
class Encoding:
    """An encode job with its ticket; `activations` and `maps` hold the `num_done` images encoded so far."""

    job: EncodeJob
    ticket: Ticket[EncodeResult]
    submitted_at: float
    activations: Float32
    maps: Float32
    started_at: float | None = None
    num_done: int = 0

    @property
    def num_left(self) -> int:
        return len(self.job) - self.num_done


@dataclass
class _Batch:
    """Which images of which jobs one call is over, in order."""

    parts: list[tuple[Encoding, slice]] = field(default_factory=list)
    num_images: int = 0

    def take(self, item: Encoding, most: int) -> None:
        """As many of the item's next images as there is room for."""
        count = min(item.num_left, most - self.num_images)
        if count:
            self.parts.append((item, slice(item.num_done, item.num_done + count)))
            self.num_images += count


class EncodingQueue:
    """Encode jobs in order of arrival, of which each tick does a batch, so that denoising goes on meanwhile.

    A job may be spread over several ticks. What belongs to a request whose work was taken before (the
    pictures that it made, say) has a queue and a batch of its own: it does not wait behind newcomers.
    """

    def __init__(
        self,
        encode: Encode,
        *,
        num_prototypes: int,
        grid_shape: tuple[int, int],
        max_batch: int,
        observer: EngineObserver,
    ) -> None:
        self._encode = encode
        self._num_prototypes = num_prototypes
        self._grid_shape = grid_shape
        self._max_batch = max_batch
        self._memory_limit = MemoryLimit(max_batch, observer)
        self._newcomers: deque[Encoding] = deque()
        self._continuations: deque[Encoding] = deque()
        self.num_failed_in_a_row = 0
        """Batches since one of which any image could be encoded."""

    @property
    def unfinished(self) -> list[Encoding]:
        return [*self._continuations, *self._newcomers]

    @property
    def num_waiting_jobs(self) -> int:
        return len(self._continuations) + len(self._newcomers)

    @property
    def num_waiting_images(self) -> int:
        return sum(item.num_left for item in self.unfinished)

    def append(
        self, job: EncodeJob, ticket: Ticket[EncodeResult], now: float, *, is_continuation: bool
    ) -> None:
        m, count = self._num_prototypes, len(job)
        activations = np.empty((count, m), np.float32)
        maps = np.empty((count, m, *self._grid_shape), np.float32)
        queue = self._continuations if is_continuation else self._newcomers
        queue.append(Encoding(job, ticket, now, activations, maps))

    def expire(self, now: float) -> None:
        """Fail the jobs whose deadline has passed."""
        for item in self.unfinished:
            if item.job.deadline <= now:
                item.ticket.fail(DeadlineExceededError("the deadline passed before the job was done"))
        self.drop_resolved()

    def tick(self, now: Callable[[], float]) -> None:
        """Encode up to a batch of each queue, and resolve the jobs that are done or have failed."""
        batch = _Batch()
        for queue in (self._continuations, self._newcomers):
            most = batch.num_images + self._max_batch
            for item in queue:
                if not item.ticket.abandoned:
                    batch.take(item, most)
        if batch.parts:
            self._run(batch, now)
        self.drop_resolved()

    def drop_resolved(self) -> None:
        for queue in (self._continuations, self._newcomers):
            if any(item.ticket.is_resolved for item in queue):
                kept = [item for item in queue if not item.ticket.is_resolved]
                queue.clear()
                queue.extend(kept)

    def _run(self, batch: _Batch, now: Callable[[], float]) -> None:
        started_at = now()
        for item, _ in batch.parts:
            if item.started_at is None:
                item.started_at = started_at
                item.ticket.start()
        x_0 = np.concatenate([item.job.x_0[part] for item, part in batch.parts])
        activations = np.empty((len(x_0), self._num_prototypes), np.float32)
        maps = np.empty((*activations.shape, *self._grid_shape), np.float32)

        def encode(part: slice) -> None:
            activations[part], maps[part] = self._encode(x_0[part])

        failures = run_isolated(encode, len(x_0), self._memory_limit.rows)
        self._memory_limit.observe(failures)
        self.num_failed_in_a_row = self.num_failed_in_a_row + 1 if len(failures.errors) == len(x_0) else 0
        finite = np.asarray(np.isfinite(activations).all(axis=1) & np.isfinite(maps).all(axis=(1, 2, 3)))
        finished_at = now()
        start = 0
        for item, part in batch.parts:
            places = slice(start, start + part.stop - part.start)
            start = places.stop
            error = failure_at(failures, finite, range(places.start, places.stop))
            if error is not None:
                item.ticket.fail(error)
                continue
            item.activations[part], item.maps[part] = activations[places], maps[places]
            item.num_done = part.stop
            if not item.num_left:
                assert item.started_at is not None
                timing = Timing(item.started_at - item.submitted_at, finished_at - item.started_at)
                item.ticket.resolve(EncodeResult(item.activations, item.maps, timing))
