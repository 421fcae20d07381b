"""How long a step takes, as measured lately."""

from __future__ import annotations

from dataclasses import dataclass

FRESH_S = 10.0
"""What was measured longer ago says nothing about now."""
WEIGHT_UP, WEIGHT_DOWN = 0.1, 0.5
"""Of the newest duration in the average. It falls faster than it rises: the estimate is to be a floor."""


@dataclass
class MovingAverage:
    """Of durations in seconds; one that is longer than twice the average counts as twice."""

    seconds: float
    measured_at: float

    def add(self, seconds: float, now: float) -> None:
        seconds = min(seconds, 2.0 * self.seconds)
        weight = WEIGHT_UP if seconds > self.seconds else WEIGHT_DOWN
        self.seconds += weight * (seconds - self.seconds)
        self.measured_at = now


class StepTimes:
    """A moving average for each batch size that was computed."""

    def __init__(self) -> None:
        self._averages: dict[int, MovingAverage] = {}

    def add(self, bucket: int, seconds: float, now: float) -> None:
        if bucket in self._averages:
            self._averages[bucket].add(seconds, now)
        else:
            self._averages[bucket] = MovingAverage(seconds, now)

    def at_least(self, bucket: int, now: float) -> float | None:
        """A floor for a step of `bucket` rows: of the sizes measured lately the largest up to it.

        None where there is none: then nothing may be concluded.
        """
        known = [
            size
            for size, average in self._averages.items()
            if size <= bucket and now - average.measured_at <= FRESH_S
        ]
        return self._averages[max(known)].seconds if known else None
