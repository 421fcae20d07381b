"""How much of the engine one client may hold at once, in row-steps: images x denoise steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class BudgetExceededError(Exception):
    """A client's running requests leave no room for this one; it may come again when they are done."""


class BudgetTooSmallError(Exception):
    """A request needs more than a client may ever hold."""


class Budget:
    """At most `max_row_steps` in flight for each client; 0 is no limit. For one event loop."""

    def __init__(self, *, max_row_steps: int) -> None:
        self._max_row_steps = max_row_steps
        self._in_flight: dict[str, int] = {}  # only clients that hold something

    def __len__(self) -> int:
        return len(self._in_flight)

    @contextmanager
    def share(self, client: str) -> Iterator[Share]:
        """What one request takes, given back when it is over."""
        share = Share(self, client)
        try:
            yield share
        finally:
            left = self._in_flight.pop(client, 0) - share.row_steps
            if left > 0:
                self._in_flight[client] = left

    def take(self, share: Share, row_steps: int) -> None:
        """As `Share.take`."""
        limit, held = self._max_row_steps, self._in_flight.get(share.client, 0)
        if limit and share.row_steps + row_steps > limit:
            raise BudgetTooSmallError(
                f"the request needs {share.row_steps + row_steps} row-steps (images x steps), and a client "
                f"may have 1 to {limit} in flight: ask for fewer images or steps"
            )
        if limit and held + row_steps > limit:
            raise BudgetExceededError(
                f"the request needs {row_steps} row-steps (images x steps), and of the {limit} that a client "
                f"may have in flight {held} are taken: retry when a request of yours is done"
            )
        self._in_flight[share.client] = held + row_steps
        share.row_steps += row_steps


class Share:
    """The row-steps of one request."""

    def __init__(self, budget: Budget, client: str) -> None:
        self._budget = budget
        self.client = client
        self.row_steps = 0

    def take(self, row_steps: int) -> None:
        """Count `row_steps` to this request. Raises BudgetTooSmallError or BudgetExceededError."""
        self._budget.take(self, row_steps)
