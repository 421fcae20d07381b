"""Work that takes a thread for seconds, and ends soon after nobody waits for it any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")

Proceed = Callable[[], None]
"""What such work calls now and then; it raises AbandonedError once there is nobody to do it for."""


class AbandonedError(Exception):
    """Nobody waits for this work; nobody hears of this error either."""


async def threaded(work: Callable[[Proceed], R]) -> R:
    """`work(proceed)` in a thread; cancelling this, as a deadline does, ends it at its next `proceed`."""
    is_abandoned = threading.Event()

    def proceed() -> None:
        if is_abandoned.is_set():
            raise AbandonedError

    try:
        return await asyncio.to_thread(work, proceed)
    finally:
        is_abandoned.set()
