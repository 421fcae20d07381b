"""A circuit breaker: what failed several times in a row is left alone, and tried again one call at a time."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.cache.cache import CacheUnavailableError


class Circuit(enum.Enum):
    """closed: calls go through; open: none does; half-open: one does, and decides."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class CircuitBreaker:
    """Opens after `max_failures` calls in a row have failed; after `pause_s` one call may probe.

    A probe that succeeds closes the circuit, and nothing else does; one that fails leaves it open for
    another pause. A call that began before the circuit opened has no say in what comes after. For one
    event loop. `watch` hears of every opening and every closing, in turns.
    """

    def __init__(
        self,
        *,
        max_failures: int,
        pause_s: float,
        clock: Callable[[], float] = time.monotonic,
        watch: Callable[[Circuit], None] = lambda circuit: None,
    ) -> None:
        self._max_failures = max_failures
        self._pause_s = pause_s
        self._clock = clock
        self._watch = watch
        self._num_failures = 0
        self._num_openings = 0
        self._circuit = Circuit.CLOSED
        self._probe_at = 0.0

    @property
    def circuit(self) -> Circuit:
        return self._circuit

    @contextmanager
    def attempt(self, failures: tuple[type[BaseException], ...]) -> Iterator[None]:
        """One call; exceptions of `failures` count against it, others (of being cancelled, say) do not.

        Raises CacheUnavailableError, at once, where the circuit lets no call through.
        """
        is_probe = self._enter()
        num_openings = self._num_openings
        try:
            yield
        except failures:
            if num_openings == self._num_openings:
                self._failed(is_probe)
            raise
        except BaseException:
            if is_probe:  # nothing was learnt: the next call may probe
                self._circuit = Circuit.OPEN
            raise
        if num_openings == self._num_openings:
            self._succeeded(is_probe)

    def _enter(self) -> bool:
        if self._circuit is Circuit.CLOSED:
            return False
        if self._circuit is Circuit.HALF_OPEN or self._clock() < self._probe_at:
            raise CacheUnavailableError("Redis failed a moment ago and is left alone")
        self._circuit = Circuit.HALF_OPEN
        return True

    def _failed(self, is_probe: bool) -> None:
        self._num_failures += 1
        if not is_probe and self._num_failures < self._max_failures:
            return
        self._circuit = Circuit.OPEN
        self._probe_at = self._clock() + self._pause_s
        if not is_probe:
            self._num_openings += 1
            self._watch(Circuit.OPEN)

    def _succeeded(self, is_probe: bool) -> None:
        self._num_failures = 0
        if is_probe:
            self._circuit = Circuit.CLOSED
            self._watch(Circuit.CLOSED)
