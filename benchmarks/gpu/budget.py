"""How long one call may take."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budget:
    """`seconds` from now, by `clock`; what would not end in time is not begun."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    @property
    def left_s(self) -> float:
        return self._end - self._clock()

    def allows(self, seconds: float) -> bool:
        """Whether something that takes so long would still end in time."""
        return self.left_s >= seconds
