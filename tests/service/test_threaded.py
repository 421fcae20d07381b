"""Work in a thread for somebody who may not wait for it."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from service.pipeline.threaded import AbandonedError, Proceed, threaded

PATIENCE_S = 30.0


def test_result_is_that_of_the_work() -> None:
    def work(proceed: Proceed) -> int:
        proceed()
        return 5

    assert asyncio.run(threaded(work)) == 5


def test_work_that_nobody_waits_for_ends() -> None:
    began, ended = threading.Event(), threading.Event()

    def work(proceed: Proceed) -> None:
        began.set()
        end = time.monotonic() + PATIENCE_S  # or a failure of this test would hang
        try:
            while time.monotonic() < end:
                proceed()
        except AbandonedError:
            ended.set()
            raise

    async def scenario() -> None:
        waiting = asyncio.ensure_future(threaded(work))
        assert await asyncio.to_thread(began.wait, PATIENCE_S)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(scenario())  # which waits for its threads
    assert ended.is_set()
