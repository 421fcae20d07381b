"""Identical work in flight is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Callers that ask for the same key while it is being computed share one computation.

    It goes on while anybody waits for it, whoever came first, and is cancelled when the last one leaves.
    """

    def __init__(self) -> None:
        self._flights: dict[str, tuple[asyncio.Task[T], list[int]]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def run(self, key: str, compute: Callable[[], Awaitable[T]]) -> T:
        """The result of `compute()`, ours or somebody else's; its exception reaches everybody."""
        if key not in self._flights:
            self._start(key, compute)
        task, waiters = self._flights[key]
        waiters[0] += 1
        try:
            return await asyncio.shield(task)
        finally:
            waiters[0] -= 1
            if waiters[0] == 0 and not task.done():
                self._flights.pop(key, None)
                task.cancel()

    def _start(self, key: str, compute: Callable[[], Awaitable[T]]) -> None:
        async def fly() -> T:
            return await compute()

        task = asyncio.create_task(fly())
        self._flights[key] = (task, [0])

        def land(finished: asyncio.Task[T]) -> None:
            if self._flights.get(key, (None,))[0] is finished:
                del self._flights[key]
            if not finished.cancelled():
                finished.exception()  # read, so that nobody left is no warning

        task.add_done_callback(land)
