"""An open-loop load: requests leave when they are due, whatever became of those before them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from service.client import AsyncClient, Call, DeadlineError, OverloadedError, PatronusError

GOOD_WITHIN = 3.0
SOLO_CALLS = 5

MakeCall = Callable[[int], Call[object]]


@dataclass(frozen=True)
class Load:
    """`rate` requests a second on average, for `duration_s`; the same seed gives the same moments."""

    rate: float
    duration_s: float
    seed: int

    def moments(self) -> list[float]:
        """When each request is due, in seconds from the start."""
        rng = np.random.default_rng(self.seed)
        moments, due_s = [], rng.exponential(1.0 / self.rate)
        while due_s < self.duration_s:
            moments.append(float(due_s))
            due_s += rng.exponential(1.0 / self.rate)
        return moments


@dataclass(frozen=True)
class Outcome:
    """seconds: from when a request was due to its answer; error: None for an answer."""

    seconds: float
    error: PatronusError | None

    @property
    def is_rejected(self) -> bool:
        """Refused on purpose: over a limit, full, or out of time."""
        return isinstance(self.error, OverloadedError | DeadlineError)


@dataclass(frozen=True)
class Summary:
    """Latencies in seconds, of answered requests, None where there are none; goodput in requests a second."""

    num_requests: int
    num_ok: int
    num_rejected: int
    num_failed: int
    solo_s: float
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    goodput: float

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], *, solo_s: float, duration_s: float) -> Summary:
        seconds = [outcome.seconds for outcome in outcomes if outcome.error is None]
        num_rejected = sum(outcome.is_rejected for outcome in outcomes)
        p50_s, p95_s, p99_s = (
            float(np.percentile(seconds, percent)) if seconds else None for percent in (50, 95, 99)
        )
        return cls(
            num_requests=len(outcomes),
            num_ok=len(seconds),
            num_rejected=num_rejected,
            num_failed=len(outcomes) - len(seconds) - num_rejected,
            solo_s=solo_s,
            p50_s=p50_s,
            p95_s=p95_s,
            p99_s=p99_s,
            goodput=sum(taken <= GOOD_WITHIN * solo_s for taken in seconds) / duration_s,
        )


async def solo_seconds(client: AsyncClient, call: MakeCall) -> float:
    """What one request takes alone, the median of a few after a first one. Raises PatronusError."""
    seconds = []
    for i in range(SOLO_CALLS + 1):
        started = time.perf_counter()
        await client.send(call(2**31 + i))  # none that the load will send: its answers may be cached
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:])


async def run_load(
    client: AsyncClient, call: MakeCall, load: Load, told: Callable[[int, int], None]
) -> list[Outcome]:
    """Every request of the load, in order of arrival. `told` hears how many of how many are over."""
    moments = load.moments()
    prepared = [call(i) for i in range(len(moments))]  # or making one would make the next late
    start = time.perf_counter()
    num_over = 0

    async def send(i: int) -> Outcome:
        nonlocal num_over
        error = None
        try:
            await client.send(prepared[i])
        except PatronusError as failure:
            error = failure
        num_over += 1
        told(num_over, len(moments))
        return Outcome(time.perf_counter() - start - moments[i], error)

    tasks = []
    for i, due_s in enumerate(moments):
        await asyncio.sleep(max(0.0, start + due_s - time.perf_counter()))
        tasks.append(asyncio.create_task(send(i)))
    return list(await asyncio.gather(*tasks))
