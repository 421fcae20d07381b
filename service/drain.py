"""Whether the service still takes requests, and how many it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Drain:
    """Once it has started, no more requests are taken; those that run go on. For one event loop."""

    def __init__(self) -> None:
        self.has_started = False
        self.num_running = 0

    def start(self) -> None:
        self.has_started = True

    @contextmanager
    def running(self) -> Iterator[None]:
        """One request, while it runs."""
        self.num_running += 1
        try:
            yield
        finally:
            self.num_running -= 1
