"""How long a step takes, as measured lately."""

from __future__ import annotations

import math
from dataclasses import dataclass

FRESH_S = 10.0
"""What was measured longer ago says nothing about now."""
WEIGHT_UP, WEIGHT_DOWN = 0.1, 0.5
"""Of the newest duration in the average. It falls faster than it rises: the estimate is to be a floor."""


LEAST_MEASURED = 3
"""Steps before an average says anything: the first ones may be slow for reasons that do not last."""


@dataclass
class MovingAverage:
    """Of durations in seconds; one that is longer than twice the average counts as twice.

    The first ones make no average but their minimum, and so again after a pause of FRESH_S.
    """

    seconds: float = math.inf
    measured_at: float = -math.inf
    num_measured: int = 0

    def is_known(self, now: float) -> bool:
        return self.num_measured >= LEAST_MEASURED and now - self.measured_at <= FRESH_S

    def add(self, seconds: float, now: float) -> None:
        if now - self.measured_at > FRESH_S:
            self.seconds, self.num_measured = math.inf, 0
        if self.num_measured < LEAST_MEASURED:
            self.seconds = min(seconds, self.seconds)
        else:
            seconds = min(seconds, 2.0 * self.seconds)
            weight = WEIGHT_UP if seconds > self.seconds else WEIGHT_DOWN
            self.seconds += weight * (seconds - self.seconds)
        self.measured_at = now
        self.num_measured += 1


class StepTimes:
    """A moving average for each batch size that was computed."""

    def __init__(self) -> None:
        self._averages: dict[int, MovingAverage] = {}

    def add(self, bucket: int, seconds: float, now: float) -> None:
        self._averages.setdefault(bucket, MovingAverage()).add(seconds, now)

    def at_least(self, bucket: int, now: float) -> float | None:
        """A floor for a step of `bucket` rows: of the sizes measured lately the largest up to it.

        None where there is none: then nothing may be concluded.
        """
        known = [size for size, average in self._averages.items() if size <= bucket and average.is_known(now)]
        return self._averages[max(known)].seconds if known else None
