"""A request's many pieces of work, a few at a time, given up early where they cannot all be done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from service.engine.errors import DeadlineExceededError
from service.pipeline.known_images import together

T = TypeVar("T")
R = TypeVar("R")

SAMPLES_IN_FLIGHT = 128
"""Enough to fill a batch; the rest of a request's work waits here, and not in the engine's queue."""
REMEDY = "ask for fewer prototypes, samples or steps"


async def in_turns(
    items: Sequence[T],
    work: Callable[[T], Coroutine[Any, Any, R]],
    *,
    num_samples: int,
    seconds_left: Callable[[], float],
    what: str,
) -> list[R]:
    """`work` on each item, which has `num_samples` samples in the engine; all results, in order.

    Raises DeadlineExceededError as soon as time would be too short even if all that was begun were done by
    now, at the pace so far; it says how many more of `what` there are. After the first, which goes alone, as
    many as go at once are taken to need no more time together, as they may share its batches.
    """
    num_places = max(1, SAMPLES_IN_FLIGHT // num_samples)
    places = asyncio.Semaphore(num_places)
    began_with_s = seconds_left()
    num_begun = 0

    async def turn(item: T) -> R:
        nonlocal num_begun
        async with places:
            num_begun += 1
            try:
                result = await work(item)
            except DeadlineExceededError as error:
                raise DeadlineExceededError(f"{error}: {REMEDY}") from error
            left_s = seconds_left()
            num_left = len(items) - num_begun
            at_once = num_places if num_begun == 1 else 1
            needed_s = (began_with_s - left_s) / num_begun * num_left / at_once
            if needed_s > left_s:
                raise DeadlineExceededError(
                    f"{num_left} more {what} need {needed_s:.1f} s or more, {left_s:.1f} s are left: {REMEDY}"
                )
            return result

    # The first one alone: once it is taken, none of the others is refused for a full queue.
    first, *others = items
    return [await turn(first), *await together([turn(item) for item in others])]
