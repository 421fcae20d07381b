"""What a request's jobs have done so far, on its way from the engine's thread to whoever follows it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from service.engine.jobs import OnStep

Float32 = npt.NDArray[np.float32]

log = logging.getLogger(__name__)


class Stage(StrEnum):
    """What the steps of a request are taken for."""

    INVERT = "invert"
    GENERATE = "generate"
    CORRECT = "correct"
    INTERVENE = "intervene"


@dataclass(frozen=True, eq=False)
class Progress:
    """Of one image of a request: `step` of `steps` of a stage are done.

    x_0_hat: (C, H, W) as predicted by the last of them, where the feed keeps it; prototype: whose
    visualization it belongs to.
    """

    stage: Stage
    image: int
    step: int
    steps: int
    x_0_hat: Float32 | None
    prototype: int | None = None


class ProgressFeed:
    """Holds the latest progress of each image of one request in each stage, with x_0_hat if `keeps_x_0_hat`.

    Who reads slowly misses some, never the last of an image, and delays nobody. `listener`'s results are
    called from the engine's thread; everything else is for the event loop that the feed was made in.
    """

    def __init__(self) -> None:
        self.keeps_x_0_hat = True
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._latest: dict[tuple[Stage, int | None, int], Progress] = {}
        self._wake = asyncio.Event()
        self._is_closed = False

    @property
    def is_over(self) -> bool:
        """Whether it is closed and everything was taken."""
        return self._is_closed and not self._latest

    def listener(
        self, stage: Stage, steps: int, *, first_image: int = 0, prototype: int | None = None
    ) -> OnStep:
        """What to tell the engine to call for a job whose sample 0 is the request's `first_image`."""

        def put(sample: int, step: int, x_0_hat: Float32) -> None:
            image, kept = first_image + sample, x_0_hat if self.keeps_x_0_hat else None
            with self._lock:
                was_empty = not self._latest
                self._latest[stage, prototype, image] = Progress(stage, image, step, steps, kept, prototype)
            if was_empty:
                self._wake_reader()

        return put

    async def take(self, wait_s: float) -> list[Progress]:
        """What is new, oldest first; nothing if nothing came for `wait_s` seconds or it is over."""
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            return []
        if not self._is_closed:
            self._wake.clear()
        with self._lock:
            latest, self._latest = self._latest, {}
        return list(latest.values())

    def close(self) -> None:
        """Let a reader end after what is there."""
        self._is_closed = True
        self._wake.set()

    def _wake_reader(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._wake.set)
        except RuntimeError:  # the loop is closed: nobody is left to tell
            log.debug("a job went on after its event loop was closed")


class Followers:
    """Everybody who follows one job that several requests wait for. Listeners may come and go meanwhile."""

    def __init__(self) -> None:
        self._listeners: tuple[OnStep, ...] = ()

    @contextmanager
    def joined_by(self, listener: OnStep | None) -> Iterator[None]:
        """Have `listener` told meanwhile; None is somebody who does not want to be."""
        if listener is None:
            yield
            return
        self._listeners = (*self._listeners, listener)
        try:
            yield
        finally:
            self._listeners = tuple(kept for kept in self._listeners if kept is not listener)

    def tell(self, sample: int, step: int, x_0_hat: Float32) -> None:
        """As `service.engine.jobs.OnStep`."""
        for listener in self._listeners:
            listener(sample, step, x_0_hat)
