"""Following a job: what a listener is told, and that it neither delays nor breaks anything."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from service.engine.async_engine import AsyncEngine
from service.engine.engine_core import EngineCore
from service.engine.errors import DeadlineExceededError, NonFiniteOutputError
from service.engine.fake_runner import FakeRunner
from service.engine.observer import SilentObserver
from service.engine.progress import Mailbox, Progress
from tests.service.engine_bench import CONFIG, EngineBench, alone, job

Float32 = npt.NDArray[np.float32]

PATIENCE_S = 20.0


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, PATIENCE_S))


def engine_of(max_batch: int = 8) -> AsyncEngine:
    core = EngineCore(FakeRunner(CONFIG, max_batch=max_batch), max_queue=100, observer=SilentObserver())
    return AsyncEngine(core, max_queue=100)


def test_each_step_of_each_sample_is_told() -> None:
    told: list[tuple[int, int]] = []
    bench = EngineBench()
    bench.submit(job(3, 2, on_step=lambda sample, step, x_0_hat: told.append((sample, step))))
    bench.run()
    assert told == [(0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (1, 3)]


def test_only_every_nth_step_and_the_last_are_told() -> None:
    told: list[int] = []
    bench = EngineBench()
    bench.submit(job(8, preview_every=3, on_step=lambda sample, step, x_0_hat: told.append(step)))
    bench.run()
    assert told == [3, 6, 8]


def test_preview_is_a_copy_and_the_last_one_is_the_image() -> None:
    previews: list[Float32] = []
    bench = EngineBench()
    submitted = bench.submit(job(4, on_step=lambda sample, step, x_0_hat: previews.append(x_0_hat)))
    bench.run()
    assert all(preview.base is None for preview in previews)  # it keeps no batch alive
    np.testing.assert_allclose(previews[-1], submitted.x[0], atol=1e-3)  # DDIM ends at x_0_hat
    assert np.abs(previews[0] - previews[-1]).max() > 0.01


def test_listener_that_raises_loses_neither_its_job_nor_the_engine() -> None:
    def complain(sample: int, step: int, x_0_hat: Float32) -> None:
        raise RuntimeError("the listener is broken")

    bench = EngineBench()
    submitted, neighbour = bench.submit(job(3, on_step=complain)), bench.submit(job(3, seed=1))
    bench.run()
    np.testing.assert_array_equal(submitted.x, alone(submitted.job))
    np.testing.assert_array_equal(neighbour.x, alone(neighbour.job))


def test_nothing_is_told_of_a_job_that_has_failed() -> None:
    told: list[tuple[int, int]] = []
    bench = EngineBench()
    given = job(3, 2, on_step=lambda sample, step, x_0_hat: told.append((sample, step)))
    given.x[0] = np.nan
    failed = bench.submit(given)
    bench.run()
    assert isinstance(failed.ticket.error, NonFiniteOutputError)
    assert told == []


def test_previews_less_than_a_step_apart_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="preview_every must be at least 1, not 0"):
        job(3, preview_every=0)


def test_awaiting_follower_is_told_up_to_the_last_step() -> None:
    async def scenario() -> None:
        told: list[Progress] = []

        async def follow(progress: Progress) -> None:
            told.append(progress)

        async with engine_of() as engine:
            result = await engine.denoise(job(20, 2), on_progress=follow)
        for sample in (0, 1):
            steps = [progress.step for progress in told if progress.sample == sample]
            assert steps == sorted(set(steps))
            assert steps[-1] == 20
        assert {progress.steps for progress in told} == {20}
        np.testing.assert_array_equal(result.x, alone(job(20, 2)))

    run(scenario())


def test_slow_follower_gets_the_latest_and_holds_nobody_up() -> None:
    async def scenario() -> None:
        told: list[int] = []
        is_reading, may_go_on = asyncio.Event(), asyncio.Event()

        async def follow(progress: Progress) -> None:
            told.append(progress.step)
            is_reading.set()
            await may_go_on.wait()

        async with engine_of() as engine:
            followed = asyncio.create_task(engine.denoise(job(500), on_progress=follow))
            await is_reading.wait()
            await engine.denoise(job(600, seed=1))  # done although the follower has not moved
            assert len(told) == 1
            may_go_on.set()
            await followed
        assert len(told) == 2
        assert told[-1] == 500

    run(scenario())


def test_follower_that_raises_cancels_its_job() -> None:
    async def scenario() -> None:
        async def follow(progress: Progress) -> None:
            raise ConnectionResetError("the client left")

        async with engine_of(max_batch=1) as engine:
            with pytest.raises(ConnectionResetError):
                await engine.denoise(job(1000, 40), on_progress=follow)
            await engine.denoise(job(2))  # 40,000 steps would take longer than the test may

    run(scenario())


def test_failure_of_a_followed_job_reaches_who_awaits_it() -> None:
    async def scenario() -> None:
        async def follow(progress: Progress) -> None:
            pass

        async with engine_of() as engine:
            with pytest.raises(DeadlineExceededError):
                await engine.denoise(job(5, deadline=-math.inf), on_progress=follow)

    run(scenario())


def test_mailbox_keeps_the_latest_of_each_sample() -> None:
    async def scenario() -> None:
        mailbox = Mailbox(steps=9)
        x_0_hat = np.zeros((1, 2, 2), np.float32)
        for step in range(1, 6):
            for sample in range(3):
                mailbox.put(sample, step, x_0_hat)
        mailbox.close()
        found = [(progress.sample, progress.step, progress.steps) async for progress in mailbox.read()]
        assert found == [(0, 5, 9), (1, 5, 9), (2, 5, 9)]

    run(scenario())
