"""How often a client may ask: a token bucket for each."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_RATE = re.compile(r"([1-9][0-9]{0,8})/([smh])")
_WHOLE = 1.0 - 1e-9
"""A token, less what adding up fractions of one may lose."""


@dataclass(frozen=True)
class Rate:
    """`count` requests per `unit` (s, m or h), of which `burst` may come at once."""

    count: int
    unit: str
    burst: int

    @classmethod
    def parse(cls, text: str, *, burst: int = 0) -> Rate:
        """`10/s`, `300/m` or `5000/h`; burst 0 is as many as the count. Raises ValueError."""
        found = _RATE.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not a rate: write N/s, N/m or N/h, N from 1 to 999999999")
        count = int(found[1])
        return cls(count, found[2], burst or count)

    @property
    def per_second(self) -> float:
        return self.count / SECONDS[self.unit]

    def __str__(self) -> str:
        return f"{self.count} requests/{self.unit} (at once: {self.burst})"


class RateLimiter:
    """A token bucket for each client: `rate.burst` tokens, refilled at `rate`; a request takes one.

    Keeps at most `max_clients` buckets, those used last; a client beyond them starts with a full one.
    """

    def __init__(
        self, rate: Rate, *, max_clients: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate = rate
        self._max_clients = max_clients
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when counted

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, client: str) -> float:
        """0.0 where the client may go on, else the seconds until it may; asking too early costs nothing."""
        now = self._clock()
        tokens, counted_at = self._buckets.get(client, (float(self.rate.burst), now))
        tokens = min(float(self.rate.burst), tokens + (now - counted_at) * self.rate.per_second)
        is_allowed = tokens >= _WHOLE
        self._buckets[client] = (max(0.0, tokens - 1.0) if is_allowed else tokens, now)
        self._buckets.move_to_end(client)
        if len(self._buckets) > self._max_clients:
            self._buckets.popitem(last=False)
        return 0.0 if is_allowed else (1.0 - tokens) / self.rate.per_second
