"""Identical work in flight is done once, for as long as anybody waits for it."""

from __future__ import annotations

import asyncio

import pytest

from service.cache.single_flight import SingleFlight


class Work:
    """A computation that ends when `finish` is set; counts how often it began and was cancelled."""

    def __init__(self, result: str = "done", error: Exception | None = None) -> None:
        self.finish = asyncio.Event()
        self.result = result
        self.error = error
        self.num_started = 0
        self.num_cancelled = 0

    async def __call__(self) -> str:
        self.num_started += 1
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return self.result


async def settle() -> None:
    """Lets every task reach the point where it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_callers_with_one_key_share_one_computation() -> None:
    async def scenario() -> None:
        flights: SingleFlight[str] = SingleFlight()
        work = Work()
        callers = [asyncio.create_task(flights.run("key", work)) for _ in range(5)]
        await settle()
        work.finish.set()
        assert await asyncio.gather(*callers) == ["done"] * 5
        assert work.num_started == 1
        assert len(flights) == 0

    asyncio.run(scenario())


def test_callers_with_different_keys_share_nothing() -> None:
    async def scenario() -> None:
        flights: SingleFlight[str] = SingleFlight()
        one, other = Work("one"), Work("other")
        callers = [asyncio.create_task(flights.run(work.result, work)) for work in (one, other)]
        await settle()
        assert len(flights) == 2
        one.finish.set()
        other.finish.set()
        assert await asyncio.gather(*callers) == ["one", "other"]

    asyncio.run(scenario())


def test_finished_work_is_not_remembered() -> None:
    async def scenario() -> None:
        flights: SingleFlight[str] = SingleFlight()
        work = Work()
        work.finish.set()
        await flights.run("key", work)
        await settle()
        await flights.run("key", work)
        assert work.num_started == 2

    asyncio.run(scenario())


def test_second_caller_gets_the_result_when_the_first_is_cancelled() -> None:
    async def scenario() -> None:
        flights: SingleFlight[str] = SingleFlight()
        work = Work()
        first, second = (asyncio.create_task(flights.run("key", work)) for _ in range(2))
        await settle()
        first.cancel()
        await settle()
        assert first.cancelled()
        work.finish.set()
        assert await second == "done"
        assert (work.num_started, work.num_cancelled) == (1, 0)

    asyncio.run(scenario())


def test_work_is_cancelled_when_the_last_caller_leaves() -> None:
    async def scenario() -> None:
        flights: SingleFlight[str] = SingleFlight()
        work = Work()
        callers = [asyncio.create_task(flights.run("key", work)) for _ in range(3)]
        await settle()
        for caller in callers:
            assert work.num_cancelled == 0
            caller.cancel()
            await settle()
        assert work.num_cancelled == 1
        assert len(flights) == 0

    asyncio.run(scenario())


def test_caller_that_comes_after_the_last_one_left_starts_anew() -> None:
    async def scenario() -> None:
        flights: SingleFlight[str] = SingleFlight()
        abandoned, work = Work("abandoned"), Work("fresh")
        leaving = asyncio.create_task(flights.run("key", abandoned))
        await settle()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        coming = asyncio.create_task(flights.run("key", work))
        await settle()
        assert len(flights) == 1
        work.finish.set()
        assert await coming == "fresh"

    asyncio.run(scenario())


def test_error_reaches_every_caller() -> None:
    async def scenario() -> None:
        flights: SingleFlight[str] = SingleFlight()
        work = Work(error=ValueError("no"))
        callers = [asyncio.create_task(flights.run("key", work)) for _ in range(3)]
        await settle()
        work.finish.set()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ValueError] * 3
        assert work.num_started == 1
        assert len(flights) == 0

    asyncio.run(scenario())


def test_failed_work_is_tried_again_by_the_next_caller() -> None:
    async def scenario() -> None:
        flights: SingleFlight[str] = SingleFlight()
        failing, work = Work(error=ValueError("no")), Work()
        failing.finish.set()
        work.finish.set()
        with pytest.raises(ValueError, match="no"):
            await flights.run("key", failing)
        await settle()
        assert await flights.run("key", work) == "done"

    asyncio.run(scenario())
