"""A time-out that blames nobody for the time our own event loop was busy with something else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

NUM_SLICES = 8
NUM_LAST_TURNS = 8


@asynccontextmanager
async def loop_timeout(seconds: float) -> AsyncIterator[None]:
    """Raises TimeoutError when the block has had `seconds`; where the loop was held, later.

    A loop that something holds (a large body being parsed, say) reads no answer, however early it came.
    So the time is waited for in slices, one timer after the other: a hold, however long, costs one slice.
    Then the loop turns a few times more, which takes no time where it is free: an answer that came
    during the last hold is read in them.
    """
    loop = asyncio.get_running_loop()
    next_turn: asyncio.Handle

    def turn(num_slices: int, num_last_turns: int) -> None:
        nonlocal next_turn
        if num_slices > 0:
            next_turn = loop.call_later(seconds / NUM_SLICES, turn, num_slices - 1, num_last_turns)
        elif num_last_turns > 0:
            next_turn = loop.call_soon(turn, 0, num_last_turns - 1)
        else:
            timeout.reschedule(loop.time())

    async with asyncio.timeout(None) as timeout:
        turn(NUM_SLICES, NUM_LAST_TURNS)
        try:
            yield
        finally:
            next_turn.cancel()
