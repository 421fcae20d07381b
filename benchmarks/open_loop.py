"""An open-loop client: requests leave when they are due, whatever became of those before them.

Arrivals are a seeded Poisson process, and a latency counts from the moment the request was due. A client
that waits for answers before it asks again slows down together with the server and hides its worst times
("coordinated omission"); this one cannot. It shares its processor with the servers, so it is spare: bytes
out, and httptools for what comes in.

    arrivals = poisson_arrivals(calls, rate=50.0, duration_s=10.0, seed=0)
    records = asyncio.run(run_open_loop("http://127.0.0.1:8000", arrivals, timeout_s=10.0))
    summary = summarize(records, solo_s={"encode": 0.006})
"""

from __future__ import annotations

import asyncio
import gc
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.http_connections import Answer, Call, Connections

GOOD_WITHIN = 3.0
"""A request is good when it is answered within so many times the solo time of its kind."""
TIMED_OUT = "timeout"


@dataclass(frozen=True)
class Arrival:
    """A call and when it is due, in seconds from the start."""

    due_s: float
    call: Call


@dataclass(frozen=True)
class Record:
    """What became of one request.

    seconds: from when it was due to the last byte of its answer (or to its failure); sent_late_s: how late
    the client itself was; status: of HTTP, 0 without an answer; error: empty, "timeout", or the name of
    what the connection ended with.
    """

    kind: str
    due_s: float
    seconds: float
    sent_late_s: float
    status: int
    error: str

    @property
    def is_ok(self) -> bool:
        return self.status == 200 and not self.error

    @property
    def is_rejected(self) -> bool:
        """Refused on purpose: over a limit (429), full (503), or hopeless (504)."""
        return self.status in (429, 503, 504)


@dataclass(frozen=True)
class Summary:
    """Of the requests that were due in one window; latencies in seconds are those of answered requests.

    goodput: requests per second of the window that were answered within GOOD_WITHIN solo times; good: the
    same as a share of all. p99_slowdown: of latency / solo time of the kind. fairness: Jain's index over
    kinds of the speed that each gets, solo time / mean latency.
    A request that the client gave up counts as an error, and in the percentiles with the time it was given.
    """

    num_requests: int
    num_ok: int
    num_good: int
    num_rejected: int
    num_errors: int
    duration_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    p99_slowdown: float
    fairness: float
    sent_late_p99_s: float
    mean_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def goodput(self) -> float:
        return self.num_good / self.duration_s

    @property
    def good(self) -> float:
        return self.num_good / self.num_requests if self.num_requests else math.nan


def poisson_arrivals(calls: Iterator[Call], *, rate: float, duration_s: float, seed: int) -> list[Arrival]:
    """As many of `calls` as a Poisson process of `rate` per second brings in `duration_s`.

    The same seed gives the same moments.
    """
    rng = np.random.default_rng(seed)
    arrivals = []
    due_s = rng.exponential(1.0 / rate)
    while due_s < duration_s:
        arrivals.append(Arrival(due_s, next(calls)))
        due_s += rng.exponential(1.0 / rate)
    return arrivals


async def run_open_loop(url: str, arrivals: Sequence[Arrival], *, timeout_s: float) -> list[Record]:
    """Send every call when it is due; give each up `timeout_s` after that. In order of arrival."""
    with Connections(url) as connections:
        start = time.perf_counter() + 0.05
        tasks: list[asyncio.Task[Record]] = []
        with _no_garbage_collection():
            for arrival in arrivals:
                wait_s = start + arrival.due_s - time.perf_counter()
                if wait_s > 0.0:
                    await asyncio.sleep(wait_s)
                tasks.append(asyncio.create_task(_send(connections, arrival, start, timeout_s)))
            return list(await asyncio.gather(*tasks))


async def run_closed_loop(
    url: str, calls: Iterable[Call], *, clients: int, timeout_s: float, duration_s: float = math.inf
) -> list[Record]:
    """`clients` of them, each asking again as soon as it is answered: for capacity and for solo times.

    `due_s` is then when a request was sent. It ends when the time is over, or when there are no more calls;
    requests that run then are waited for.
    """
    with Connections(url) as connections:
        start = time.perf_counter()
        records: list[Record] = []
        shared = iter(calls)

        async def client() -> None:
            for call in shared:
                now = time.perf_counter() - start
                if now >= duration_s:
                    return
                records.append(await _send(connections, Arrival(now, call), start, timeout_s))

        with _no_garbage_collection():
            await asyncio.gather(*(client() for _ in range(clients)))
        return records


async def ask(url: str, call: Call, *, timeout_s: float) -> Answer:
    """One call. Raises OSError or TimeoutError."""
    with Connections(url) as connections:
        async with asyncio.timeout(timeout_s):
            return await connections.send(call)


def summarize(
    records: Sequence[Record],
    *,
    solo_s: Mapping[str, float],
    from_s: float = 0.0,
    until_s: float | None = None,
) -> Summary:
    """Of the requests due from `from_s` until `until_s` (None: the last one). `solo_s`: by kind."""
    until_s = max((record.due_s for record in records), default=from_s) if until_s is None else until_s
    counted = [record for record in records if from_s <= record.due_s <= until_s]
    timed = [record for record in counted if record.is_ok or record.error == TIMED_OUT]
    seconds = np.array([record.seconds for record in timed] or [math.nan])
    slowdowns = [record.seconds / solo_s[record.kind] for record in timed] or [math.nan]
    by_kind: dict[str, list[float]] = {}
    for record in timed:
        by_kind.setdefault(record.kind, []).append(record.seconds)
    mean_s = {kind: float(np.mean(times)) for kind, times in sorted(by_kind.items())}
    p50_s, p95_s, p99_s = (float(np.percentile(seconds, percent)) for percent in (50, 95, 99))
    num_ok = sum(record.is_ok for record in counted)
    num_rejected = sum(record.is_rejected for record in counted)
    late = [record.sent_late_s for record in counted] or [math.nan]
    return Summary(
        num_requests=len(counted),
        num_ok=num_ok,
        num_good=sum(
            record.is_ok and record.seconds <= GOOD_WITHIN * solo_s[record.kind] for record in counted
        ),
        num_rejected=num_rejected,
        num_errors=len(counted) - num_ok - num_rejected,
        duration_s=until_s - from_s,
        p50_s=p50_s,
        p95_s=p95_s,
        p99_s=p99_s,
        p99_slowdown=float(np.percentile(slowdowns, 99)),
        fairness=jain_index([solo_s[kind] / mean for kind, mean in mean_s.items()]),
        sent_late_p99_s=float(np.percentile(late, 99)),
        mean_s=mean_s,
    )


def jain_index(shares: Sequence[float]) -> float:
    """1 where all have the same, 1/n where one of n has everything (Jain, Chiu, Hawe 1984, eq. 1)."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else math.nan


async def _send(connections: Connections, arrival: Arrival, start: float, timeout_s: float) -> Record:
    due = start + arrival.due_s
    sent_late_s = time.perf_counter() - due
    status, error = 0, ""
    try:
        async with asyncio.timeout(timeout_s - sent_late_s):
            status = (await connections.send(arrival.call)).status
    except TimeoutError:
        error = TIMED_OUT
    except OSError as failure:
        error = type(failure).__name__
    return Record(arrival.call.kind, arrival.due_s, time.perf_counter() - due, sent_late_s, status, error)


class _no_garbage_collection:  # noqa: N801  (used like a function)
    """The client's own pauses must not count as the server's."""

    def __enter__(self) -> None:
        gc.collect()
        gc.disable()

    def __exit__(self, *error: object) -> None:
        gc.enable()
