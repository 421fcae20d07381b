"""A job's progress on its way from the engine's thread to whoever follows it in an event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Progress:
    """Of one sample of a job: `step` of `steps` are done; x_0_hat: (C, H, W) as predicted by the last."""

    sample: int
    step: int
    steps: int
    x_0_hat: Float32


class Mailbox:
    """Holds the latest progress of each sample of one job: who reads slowly misses some, and delays nobody.

    `put` is for the engine's thread, everything else for the event loop.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._latest: dict[int, Progress] = {}
        self._wake = asyncio.Event()
        self._is_closed = False

    def put(self, sample: int, step: int, x_0_hat: Float32) -> None:
        """As `service.engine.jobs.OnStep`."""
        with self._lock:
            was_empty = not self._latest
            self._latest[sample] = Progress(sample, step, self._steps, x_0_hat)
        if was_empty:
            try:
                self._loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:  # the loop is closed: nobody is left to tell
                log.debug("a job went on after its event loop was closed")

    def close(self) -> None:
        """Let `read` end after what is there."""
        self._is_closed = True
        self._wake.set()

    async def read(self) -> AsyncIterator[Progress]:
        """The latest progress of each sample, again and again until closed."""
        is_last = False
        while not is_last:
            await self._wake.wait()
            self._wake.clear()
            is_last = self._is_closed
            with self._lock:
                latest, self._latest = self._latest, {}
            for progress in latest.values():
                yield progress
