"""When a call is tried again: never beyond its deadline, never sooner than the service asks."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from service.client.errors import ApiError, DeadlineError, OverloadedError, PatronusError, UnreachableError


@dataclass(frozen=True)
class Retries:
    """How often and how patiently: `max_retries` after the first attempt, 0 for none.

    Before retry n the wait is drawn from 0 to first_wait_s · 2ⁿ (longest_wait_s at most), which keeps many
    clients from coming back together ("full jitter"), and on top of it what Retry-After says.
    """

    max_retries: int = 4
    first_wait_s: float = 0.2
    longest_wait_s: float = 10.0

    def __post_init__(self) -> None:
        if self.max_retries < 0 or self.first_wait_s < 0 or self.longest_wait_s < 0:
            raise ValueError(f"retries and waits must be 0 or more, not {self}")


class Attempts:
    """The attempts of one call: how much time is left, and how long to wait after a failed one."""

    def __init__(
        self,
        retries: Retries,
        timeout_s: float,
        *,
        is_idempotent: bool = True,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        if not timeout_s > 0:
            raise ValueError(f"timeout_s must be above 0, not {timeout_s}")
        self._retries = retries
        self._timeout_s = timeout_s
        self._is_idempotent = is_idempotent
        self._clock = clock
        self._draw = draw
        self._deadline = clock() + timeout_s
        self._num_failed = 0

    def seconds_left(self) -> float:
        """Until the deadline. Raises DeadlineError once there are none."""
        left = self._deadline - self._clock()
        if left <= 0:
            raise self._late()
        return left

    def check(self, grace_s: float = 0.0) -> None:
        """Raises DeadlineError where the deadline is more than `grace_s` ago."""
        if self._clock() - self._deadline >= grace_s:
            raise self._late()

    def wait_after(self, error: PatronusError) -> float:
        """Seconds to wait before the next attempt; raises `error` where there should be none."""
        if not self._is_worth_another(error) or self._num_failed >= self._retries.max_retries:
            raise error
        jitter_s = min(self._retries.longest_wait_s, self._retries.first_wait_s * 2.0**self._num_failed)
        wait_s = self._draw(0.0, jitter_s)
        if isinstance(error, ApiError):
            wait_s += error.retry_after_s or 0.0
        if wait_s >= self._deadline - self._clock():
            raise error
        self._num_failed += 1
        return wait_s

    def _late(self) -> DeadlineError:
        return DeadlineError(f"no answer within {self._timeout_s:g} s")

    def _is_worth_another(self, error: PatronusError) -> bool:
        if isinstance(error, UnreachableError):  # it may have been done, though nobody heard of it
            return self._is_idempotent
        return isinstance(error, OverloadedError)
