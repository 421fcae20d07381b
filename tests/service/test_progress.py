"""Progress on its way from the engine's thread to a reader that may be slow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from service.engine.async_engine import AsyncEngine
from service.engine.engine_core import EngineCore
from service.engine.fake_runner import FakeRunner
from service.engine.observer import SilentObserver
from service.pipeline.progress import Followers, Progress, ProgressFeed, Stage
from tests.service.engine_bench import CONFIG, alone, job

PATIENCE_S = 20.0
X_0_HAT = np.zeros((1, 2, 2), np.float32)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, PATIENCE_S))


def engine_of(max_batch: int = 8) -> AsyncEngine:
    core = EngineCore(FakeRunner(CONFIG, max_batch=max_batch), max_queue=100, observer=SilentObserver())
    return AsyncEngine(core, max_queue=100)


def test_latest_of_each_image_in_each_stage_is_kept() -> None:
    async def scenario() -> None:
        feed = ProgressFeed()
        invert, generate = feed.listener(Stage.INVERT, 9), feed.listener(Stage.GENERATE, 7, first_image=1)
        for step in range(1, 6):
            invert(0, step, X_0_HAT)
            for sample in range(2):
                generate(sample, step, X_0_HAT)
        news = await feed.take(PATIENCE_S)
        assert [(item.stage, item.image, item.step, item.steps) for item in news] == [
            (Stage.INVERT, 0, 5, 9),
            (Stage.GENERATE, 1, 5, 7),
            (Stage.GENERATE, 2, 5, 7),
        ]

    run(scenario())


def test_closed_feed_still_gives_what_it_had_and_is_then_over() -> None:
    async def scenario() -> None:
        feed = ProgressFeed()
        feed.listener(Stage.GENERATE, 3)(0, 3, X_0_HAT)
        feed.close()
        assert not feed.is_over
        assert [item.step for item in await feed.take(PATIENCE_S)] == [3]
        assert feed.is_over
        assert await feed.take(PATIENCE_S) == []

    run(scenario())


def test_feed_keeps_pictures_only_for_those_who_want_them() -> None:
    async def scenario() -> None:
        feed = ProgressFeed()
        listener = feed.listener(Stage.GENERATE, 3)
        listener(0, 1, X_0_HAT)
        assert (await feed.take(PATIENCE_S))[0].x_0_hat is X_0_HAT
        feed.keeps_x_0_hat = False
        listener(0, 2, X_0_HAT)
        assert (await feed.take(PATIENCE_S))[0].x_0_hat is None

    run(scenario())


def test_reader_that_waits_in_vain_gets_nothing() -> None:
    async def scenario() -> None:
        feed = ProgressFeed()
        assert await feed.take(0.001) == []
        assert not feed.is_over

    run(scenario())


def test_progress_from_another_thread_wakes_the_reader() -> None:
    async def scenario() -> None:
        feed = ProgressFeed()
        listener = feed.listener(Stage.GENERATE, 3, prototype=4)
        thread = threading.Thread(target=listener, args=(0, 1, X_0_HAT))
        reading = asyncio.ensure_future(feed.take(PATIENCE_S))
        await asyncio.sleep(0)  # it waits now
        thread.start()
        (item,) = await reading
        thread.join()
        assert (item.step, item.prototype) == (1, 4)

    run(scenario())


def test_slow_reader_gets_the_latest_and_holds_nobody_up() -> None:
    async def scenario() -> None:
        feed = ProgressFeed()
        steps = 500
        followed = job(steps, on_step=feed.listener(Stage.GENERATE, steps))
        async with engine_of() as engine:
            working = asyncio.ensure_future(engine.denoise(followed))
            first = await feed.take(PATIENCE_S)
            await engine.denoise(job(600, seed=1))  # done although the reader does not move
            result = await working
        news = first + await feed.take(PATIENCE_S)
        assert len(news) == 2
        assert news[-1].step == steps
        np.testing.assert_array_equal(result.x, alone(job(steps)))

    run(scenario())


def test_reader_that_keeps_up_sees_steps_in_order_up_to_the_last() -> None:
    async def scenario() -> None:
        feed = ProgressFeed()
        told: list[Progress] = []
        async with engine_of() as engine:
            working = asyncio.ensure_future(
                engine.denoise(job(20, 2, on_step=feed.listener(Stage.GENERATE, 20)))
            )
            working.add_done_callback(lambda _: feed.close())
            while not feed.is_over:
                told += await feed.take(PATIENCE_S)
        for image in (0, 1):
            steps = [item.step for item in told if item.image == image]
            assert steps == sorted(set(steps))
            assert steps[-1] == 20

    run(scenario())


def test_everybody_who_joined_is_told_until_they_leave() -> None:
    first: list[int] = []
    second: list[int] = []
    followers = Followers()
    with followers.joined_by(lambda sample, step, x: first.append(step)), followers.joined_by(None):
        followers.tell(0, 1, X_0_HAT)
        with followers.joined_by(lambda sample, step, x: second.append(step)):
            followers.tell(0, 2, X_0_HAT)
        followers.tell(0, 3, X_0_HAT)
    followers.tell(0, 4, X_0_HAT)
    assert (first, second) == ([1, 2, 3], [2])


def test_follower_leaves_also_when_its_request_fails() -> None:
    told: list[int] = []
    followers = Followers()
    with (
        pytest.raises(ConnectionResetError),
        followers.joined_by(lambda sample, step, x: told.append(step)),
    ):
        raise ConnectionResetError
    followers.tell(0, 1, X_0_HAT)
    assert told == []
