"""A step that hangs is noticed, told, and survived."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.engine.async_engine import HANGS_AFTER_S, AsyncEngine, EngineState
from service.engine.engine_core import EngineCore
from service.engine.errors import EngineHangsError
from service.engine.fake_runner import FakeRunner
from service.engine.observer import SilentObserver
from service.engine.runner import StepInputs, StepOutputs
from tests.service.engine_bench import CONFIG, job

PATIENCE_S = 20.0


class Clock:
    """Stands still unless it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class HangingRunner(FakeRunner):
    """Each step takes `step_s` by the clock, 1 ms from the `quick_from`-th on.

    The `hangs_at`-th stands still until `gate` is opened.
    """

    def __init__(self, clock: Clock, *, hangs_at: int, step_s: float = 0.04) -> None:
        super().__init__(CONFIG)
        self.clock = clock
        self.hangs_at = hangs_at
        self.step_s = step_s
        self.quick_from = 1000
        self.gate = threading.Event()
        self.hangs = threading.Event()

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        if self.calls == self.hangs_at:
            self.hangs.set()
            assert self.gate.wait(PATIENCE_S)
        self.clock.now += self.step_s if self.calls < self.quick_from else 0.001
        return super().denoise_step(inputs)


@asynccontextmanager
async def hanging(runner: HangingRunner) -> AsyncIterator[tuple[AsyncEngine, asyncio.Task[Any]]]:
    """An engine whose thread stands in a step, and who waits for it."""
    core = EngineCore(runner, max_queue=10, observer=SilentObserver())
    engine = AsyncEngine(core, max_queue=10, step_timeout_s=30.0, clock=runner.clock)
    async with engine:
        running = asyncio.create_task(engine.denoise(job(10)))
        try:
            assert await asyncio.to_thread(runner.hangs.wait, PATIENCE_S)
            yield engine, running
        finally:
            runner.gate.set()
            await running


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, PATIENCE_S))


def state_of(engine: AsyncEngine) -> EngineState:
    return engine.state


def test_step_that_takes_far_longer_than_steps_do_hangs_and_says_so() -> None:
    async def scenario() -> None:
        clock = Clock()
        async with hanging(HangingRunner(clock, hangs_at=3)) as (engine, _):
            clock.now += HANGS_AFTER_S
            assert engine.hang is None
            clock.now += 7.0
            assert engine.hang == "a step has been running for 12 s, expected 0.04 s"
            assert state_of(engine) is EngineState.HANGING
            assert not engine.hangs_for_good

    run(scenario())


def test_slow_device_is_given_time_in_proportion() -> None:
    async def scenario() -> None:
        clock = Clock()
        async with hanging(HangingRunner(clock, hangs_at=3, step_s=0.2)) as (engine, _):
            clock.now += 19.0
            assert engine.hang is None
            clock.now += 2.0
            assert engine.hang is not None

    run(scenario())


def test_device_that_was_slow_lately_is_given_time_again() -> None:
    async def scenario() -> None:
        clock = Clock()
        runner = HangingRunner(clock, hangs_at=3, step_s=8.0)
        runner.quick_from = 1
        async with hanging(runner) as (engine, _):
            clock.now += 29.0
            assert engine.hang is None
            clock.now += 2.0
            assert engine.hang == "a step has been running for 31 s, expected 7.8 s"

    run(scenario())


def test_first_step_is_given_the_step_timeout() -> None:
    async def scenario() -> None:
        clock = Clock()
        async with hanging(HangingRunner(clock, hangs_at=0)) as (engine, _):
            clock.now += 30.0
            assert engine.hang is None
            clock.now += 1.0
            assert engine.hang == "a step has been running for 31 s, expected at most 30 s"
            assert engine.hangs_for_good

    run(scenario())


def test_new_work_is_refused_while_a_step_hangs_and_taken_when_it_returns() -> None:
    async def scenario() -> None:
        clock = Clock()
        runner = HangingRunner(clock, hangs_at=3)
        async with hanging(runner) as (engine, running):
            clock.now += 12.0
            with pytest.raises(EngineHangsError, match="a step has been running for 12 s"):
                await engine.denoise(job(2))
            runner.gate.set()
            await running
            assert state_of(engine) is EngineState.READY
            await engine.denoise(job(2))

    run(scenario())


def test_engine_without_work_does_not_hang() -> None:
    async def scenario() -> None:
        clock = Clock()
        core = EngineCore(FakeRunner(CONFIG), max_queue=10, observer=SilentObserver())
        engine = AsyncEngine(core, max_queue=10, step_timeout_s=30.0, clock=clock)
        clock.now += 100.0
        assert engine.hang is None
        async with engine:
            await engine.denoise(job(2))
            assert engine.hang is None
        clock.now += 100.0
        assert engine.hang is None

    run(scenario())
