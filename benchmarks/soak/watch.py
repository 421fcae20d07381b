"""What a process uses, second by second, and whether it grows."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.faults.service_process import Resources, ServiceProcess

EVERY_S = 1.0
SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Sample:
    """At so many seconds (monotonic)."""

    at_s: float
    resources: Resources


@dataclass(frozen=True)
class Slope:
    """In units per hour, with its standard error as if the residuals were independent."""

    per_hour: float
    error: float


async def watch(service: ServiceProcess, samples: list[Sample]) -> None:
    """Append a sample every second, until cancelled."""
    while True:
        samples.append(Sample(time.monotonic(), service.resources))
        await asyncio.sleep(EVERY_S)


def memory_slope(samples: Sequence[Sample]) -> Slope:
    """Of resident memory in MiB/h, over the second half of the time."""
    if not samples:
        return Slope(math.nan, math.nan)
    middle = (samples[0].at_s + samples[-1].at_s) / 2
    late = [sample for sample in samples if sample.at_s >= middle]
    return slope([sample.at_s for sample in late], [sample.resources.rss_mib for sample in late])


def slope(seconds: Sequence[float], values: Sequence[float]) -> Slope:
    """By least squares; not a number for fewer than three points."""
    if len(seconds) < 3:
        return Slope(math.nan, math.nan)
    x, y = np.array(seconds) / SECONDS_PER_HOUR, np.array(values)
    x = x - x.mean()
    per_hour = float(x @ y / (x @ x))
    residuals = y - y.mean() - per_hour * x
    variance = float(residuals @ residuals) / (len(x) - 2)
    return Slope(per_hour, math.sqrt(variance / float(x @ x)))
