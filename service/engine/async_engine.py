"""The engine's one thread, and the bridge from asyncio to it."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from enum import StrEnum
from types import TracebackType
from typing import Any, TypeVar

from service.engine.engine_core import EngineCore
from service.engine.errors import (
    DeadlineExceededError,
    EngineError,
    EngineHangsError,
    EngineStoppedError,
    QueueFullError,
)
from service.engine.job_record import JobRecord
from service.engine.jobs import DenoiseJob, DenoiseResult, EncodeJob, EncodeResult, Ticket

log = logging.getLogger(__name__)

R = TypeVar("R")

IDLE_HEARTBEAT_S = 0.5
HANGS_AFTER_S, HANGS_AFTER_STEPS = 5.0, 100.0
"""A step hangs that takes longer than both: these seconds, and so many times the longest step lately."""
LAST_STEP_S = 1.0
"""How long a stopping engine is waited for that has nobody left to answer."""
BROKEN_AFTER = 5
"""A network is broken that has failed so often in a row, for all that it was given."""
FORGETTING = 0.99
"""How much of the longest step is remembered from one step to the next."""


class EngineState(StrEnum):
    """Where the engine is in its life; only `ready` takes work."""

    STOPPED = "stopped"
    READY = "ready"
    HANGING = "hanging"
    DRAINING = "draining"
    DEAD = "dead"


class AsyncEngine:
    """Runs EngineCores, one for each model, in one thread; any event loop awaits `denoise` and `encode`.

    A job is for the first core unless another of them is named; cores with work take their ticks in turn.

    An async context manager: the thread starts on entry; on exit running work is finished within
    `drain_timeout_s` and what is left fails with EngineStoppedError. Cancelling an awaiting task
    cancels its job within one step.

    While a step hangs, new work is refused with EngineHangsError; when the step returns after all, work is
    taken again. `step_timeout_s` is the longest that a step may take whatever it took before.
    """

    def __init__(
        self,
        core: EngineCore,
        *others: EngineCore,
        max_queue: int,
        drain_timeout_s: float = 30.0,
        step_timeout_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cores = (core, *others)
        self._max_queue = max_queue
        self._drain_timeout_s = drain_timeout_s
        self._step_timeout_s = step_timeout_s
        self._clock = clock
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._inbox_samples = 0
        self._outstanding: set[asyncio.Future[Any]] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="patronus-engine", daemon=True)
        self._state = EngineState.STOPPED
        self._stop_at: float | None = None
        self._last_tick = clock()
        self._longest_s: float | None = None

    @property
    def state(self) -> EngineState:
        if self._state is EngineState.READY and self.hang is not None:
            return EngineState.HANGING
        return self._state

    @property
    def heartbeat_age_s(self) -> float:
        """Seconds since the thread last came round; grows while a step hangs."""
        return self._clock() - self._last_tick

    @property
    def hang(self) -> str | None:
        """What hangs, for how long, and how long it should have taken; None while nothing does."""
        if self._state not in (EngineState.READY, EngineState.DRAINING):
            return None
        age_s, usual_s, limit_s = self.heartbeat_age_s, self._longest_s, self._step_timeout_s
        if usual_s is not None:
            limit_s = min(limit_s, max(HANGS_AFTER_S, HANGS_AFTER_STEPS * usual_s))
        if age_s <= limit_s:
            return None
        expected = f"{usual_s:.2g} s" if usual_s is not None else f"at most {limit_s:g} s"
        return f"a step has been running for {age_s:.0f} s, expected {expected}"

    @property
    def hangs_for_good(self) -> bool:
        """Whether a step has been running for longer than `step_timeout_s`."""
        return self.hang is not None and self.heartbeat_age_s > self._step_timeout_s

    @property
    def failure(self) -> str | None:
        """What to say of a network that fails for everybody, as one on a broken device does; else None."""
        count = max(core.num_failed_in_a_row for core in self._cores)
        return f"the last {count} calls of the network failed" if count >= BROKEN_AFTER else None

    def deadline_in(self, seconds: float) -> float:
        """A job deadline that many seconds from now."""
        return self._clock() + seconds

    def check_time(self, steps: int, deadline: float, core: EngineCore | None = None) -> None:
        """Raise DeadlineExceededError where `steps` steps, one after the other, take longer than that.

        A floor, as measured lately; it raises nothing where nothing was.
        """
        now = self._clock()
        needed_s = (core or self._cores[0]).seconds_of(steps, now)
        if needed_s is not None and needed_s > deadline - now:
            left_s = deadline - now
            raise DeadlineExceededError(
                f"the request needs about {needed_s:.3g} s, {left_s:.3g} s are left before its deadline"
            )

    async def denoise(self, job: DenoiseJob, core: EngineCore | None = None) -> DenoiseResult:
        """Run a job to its end. Raises EngineError."""
        core = core or self._cores[0]
        return await self._submit(job, core, core.submit_denoise)

    async def encode(self, job: EncodeJob, core: EngineCore | None = None) -> EncodeResult:
        """Encode images. Raises EngineError."""
        core = core or self._cores[0]
        return await self._submit(job, core, core.submit_encode)

    def drain(self) -> None:
        """Take no more work; the thread ends when what it has is done or `drain_timeout_s` is over."""
        if self._state is EngineState.READY:
            self._state = EngineState.DRAINING
            self._stop_at = self._clock() + self._drain_timeout_s
            self._inbox.put(_nothing)

    async def __aenter__(self) -> AsyncEngine:
        self._last_tick = self._clock()
        self._state = EngineState.READY
        self._thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.drain()
        started_at = time.monotonic()
        while self._thread.is_alive():
            patience_s = self._drain_timeout_s + LAST_STEP_S if self._outstanding else LAST_STEP_S
            if time.monotonic() - started_at > patience_s:
                break
            await asyncio.sleep(0.01)
        if self._thread.is_alive():
            log.error("the engine thread hangs in a step and is left behind")
            self._state = EngineState.DEAD
            for future in self._outstanding:
                if not future.done():
                    future.set_exception(EngineStoppedError("the engine hangs in a step"))

    async def _submit(self, job: _J, core: EngineCore, submit: Callable[[_J, Ticket[R], float], None]) -> R:
        with nullcontext() if core.recorder is None else core.recorder.record(job) as record:
            return await self._run_job(job, core, submit, record)

    async def _run_job(
        self,
        job: _J,
        core: EngineCore,
        submit: Callable[[_J, Ticket[R], float], None],
        record: JobRecord | None,
    ) -> R:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()

        def tell(resolved: Ticket[R]) -> None:
            self._last_tick = self._clock()  # the thread lives: whoever is told may ask for more
            _send(loop, future, resolved)

        ticket: Ticket[R] = Ticket(tell, record=record)
        self._post_job(job, lambda: submit(job, ticket, self._clock()))
        self._outstanding.add(future)
        try:
            return await future
        except asyncio.CancelledError:
            ticket.abandoned = True
            self._inbox.put(lambda: core.cancel(ticket))  # type: ignore[arg-type]
            raise
        finally:
            self._outstanding.discard(future)

    def _post_job(self, job: DenoiseJob | EncodeJob, submit: Callable[[], None]) -> None:
        samples = len(job)

        def take() -> None:
            with self._lock:
                self._inbox_samples -= samples
            submit()

        with self._lock:
            if self._state is not EngineState.READY:
                raise EngineStoppedError(f"the engine is {self._state}")
            hang = self.hang
            if hang is not None:
                raise EngineHangsError(hang)
            waiting = self._inbox_samples
            if waiting and waiting + samples > self._max_queue and not job.admission.is_taken:
                raise QueueFullError(f"{waiting} of {self._max_queue} places are taken")
            self._inbox_samples += samples
            self._inbox.put(take)

    def _run(self) -> None:
        try:
            while not self._is_finished():
                self._take_inbox()
                self._last_tick = self._clock()
                for core in self._cores:
                    if core.has_work:
                        self._tick(core)
            outcome = EngineState.STOPPED
        except BaseException:
            log.exception("the engine thread died")
            outcome = EngineState.DEAD
        with self._lock:  # no job is posted after this
            self._state = outcome
        error = EngineStoppedError(f"the engine is {outcome}")
        while not self._inbox.empty():
            _at_all_events(self._inbox.get())
        for core in self._cores:
            _at_all_events(lambda core=core: core.abort(error))  # type: ignore[misc]
        for future in tuple(self._outstanding):  # whoever the above should have told, and did not
            _fail(future, error)

    @property
    def _has_work(self) -> bool:
        return any(core.has_work for core in self._cores)

    def _tick(self, core: EngineCore) -> None:
        started_at = self._clock()
        core.tick(self._clock)
        self._last_tick = self._clock()
        remembered_s = 0.0 if self._longest_s is None else FORGETTING * self._longest_s
        self._longest_s = max(remembered_s, self._last_tick - started_at)

    def _is_finished(self) -> bool:
        if self._stop_at is None:
            return False
        has_work = self._has_work or not self._inbox.empty()
        return not has_work or self._clock() >= self._stop_at

    def _take_inbox(self) -> None:
        """Take what was posted; with nothing else to do, wait for it up to a heartbeat."""
        try:
            if not self._has_work:
                self._inbox.get(timeout=IDLE_HEARTBEAT_S)()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            return


_J = TypeVar("_J", DenoiseJob, EncodeJob)


def _at_all_events(act: Callable[[], None]) -> None:
    try:
        act()
    except BaseException:
        log.exception("the engine failed once more while it stopped")


def _fail(future: asyncio.Future[Any], error: EngineError) -> None:
    """Fail a future of some event loop from the engine's thread, unless it is resolved by then."""

    def fail() -> None:
        if not future.done():
            future.set_exception(error)

    try:
        future.get_loop().call_soon_threadsafe(fail)
    except RuntimeError:  # the loop is closed: nobody is left to tell
        log.debug("the engine stopped after an event loop was closed")


def _nothing() -> None:
    """Posted to wake the thread."""


def _send(loop: asyncio.AbstractEventLoop, future: asyncio.Future[R], ticket: Ticket[R]) -> None:
    try:
        loop.call_soon_threadsafe(_deliver, future, ticket)
    except RuntimeError:  # the loop is closed: nobody is left to tell
        log.debug("a job ended after its event loop was closed")


def _deliver(future: asyncio.Future[R], ticket: Ticket[R]) -> None:
    if future.done():  # the claimant was cancelled meanwhile
        return
    if ticket.error is not None:
        future.set_exception(ticket.error)
    elif ticket.result is not None:
        future.set_result(ticket.result)
