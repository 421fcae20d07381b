"""Clients that ask, wait or leave, and write down how it ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.faults.calls import Address, Call, LostError, UnreachableError, send
from benchmarks.faults.outcomes import Expected, Outcome, Record, judge

MARGIN_S = 2.0
"""How long after its deadline an answer is waited for before the request counts as hung."""


@dataclass(frozen=True)
class Request:
    """A call and its right answers; the client of one with `leaves_after_s` closes the connection then."""

    call: Call
    expected: Expected
    leaves_after_s: float | None = None
    kind: str = ""


async def ask(address: Address, request: Request) -> Record:
    """Send one request and say how it ended."""
    sent_at = time.monotonic()
    patience_s = request.expected.deadline_s + MARGIN_S
    leaves = request.leaves_after_s is not None and request.leaves_after_s < patience_s

    def record(outcome: Outcome, detail: str = "", status: int | None = None) -> Record:
        return Record(sent_at, time.monotonic() - sent_at, outcome, status, detail, request.kind)

    try:
        async with asyncio.timeout(request.leaves_after_s if leaves else patience_s):
            reply = await send(address, request.call)
    except TimeoutError:
        if leaves:
            return record(Outcome.LEFT)
        return record(Outcome.HUNG, f"no answer within {patience_s:g} s")
    except UnreachableError as error:
        return record(Outcome.UNREACHABLE, str(error))
    except LostError as error:
        return record(Outcome.LOST, str(error))
    outcome, detail = judge(reply, request.expected, time.monotonic() - sent_at)
    return record(outcome, detail, reply.status)


async def together(address: Address, requests: Iterable[Request]) -> list[Record]:
    """Send all at once."""
    return list(await asyncio.gather(*(ask(address, request) for request in requests)))


async def open_loop(
    address: Address,
    make_request: Callable[[], Request],
    *,
    per_s: float,
    seconds: float,
    rng: np.random.Generator,
) -> list[Record]:
    """Poisson arrivals for so many seconds, whether earlier ones are answered or not; then all answers."""
    asking: list[asyncio.Task[Record]] = []
    started_at = time.monotonic()
    due = started_at + rng.exponential(1.0 / per_s)
    while due < started_at + seconds:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        asking.append(asyncio.create_task(ask(address, make_request())))
        due += rng.exponential(1.0 / per_s)
    return list(await asyncio.gather(*asking))


async def closed_loop(
    address: Address, make_request: Callable[[], Request], *, num_clients: int, seconds: float
) -> list[Record]:
    """So many clients that each ask again as soon as they are answered."""
    end = time.monotonic() + seconds

    async def client() -> list[Record]:
        records = []
        while time.monotonic() < end:
            records.append(await ask(address, make_request()))
        return records

    found = await asyncio.gather(*(client() for _ in range(num_clients)))
    return [record for records in found for record in records]
