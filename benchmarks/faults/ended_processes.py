"""The service's process ends: killed, or told to."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from benchmarks.faults.calls import send
from benchmarks.faults.clients import Request, ask
from benchmarks.faults.contract import picture_file
from benchmarks.faults.outcomes import Outcome, Record, Tally
from benchmarks.faults.stage import LOAD_PER_S, Fault, Finding, Stage

RETRY_S = 0.1
DIED = (Outcome.LOST, Outcome.UNREACHABLE)
DRAIN_S = 4
LONG_STEPS = 1000
SHARE_LONG = 0.05


async def kill(stage: Stage) -> Finding:
    """SIGKILL under load; a supervisor starts it again, clients ask again until they are answered."""
    kept = stage.contract.encode(picture_file(1000))
    await send(stage.service.address, kept)
    mixture = await stage.mixture()
    died: list[Record] = []
    asking: list[asyncio.Task[Record]] = []
    started_at = time.monotonic()
    killed_after_s = stage.seconds / 3
    restarting: asyncio.Task[float] | None = None
    while time.monotonic() < started_at + stage.seconds:
        await asyncio.sleep(stage.rng.exponential(1.0 / LOAD_PER_S))
        request = mixture[int(stage.rng.integers(len(mixture)))]
        asking.append(asyncio.create_task(_ask_until_answered(stage, request, died)))
        if restarting is None and time.monotonic() > started_at + killed_after_s:
            stage.service.kill()
            restarting = asyncio.create_task(stage.service.start())
    assert restarting is not None
    start_s = await restarting
    records = list(await asyncio.gather(*asking))
    is_cached = stage.contract.is_cached(await send(stage.service.address, kept))
    note = (
        f"ready again {start_s:.1f} s after the kill; {len(died)} tries died with the process or found "
        f"none, every one was asked again; what Redis held is {'a hit' if is_cached else 'NOT a hit'}"
    )
    return Finding(Tally(records), note)


async def terminate(stage: Stage) -> Finding:
    """SIGTERM under load: what was sent before it is answered, and so is what was accepted after it.

    Some requests take longer than the drain time: they must be told so with a 503.
    """
    mixture = await stage.mixture(refusals=[503])
    long = await stage.solo.requests([stage.contract.generate(5, LONG_STEPS)], refusals=[503])
    requests = mixture + long * max(1, round(SHARE_LONG * len(mixture)))
    loading = asyncio.create_task(stage.load(requests, per_s=2 * LOAD_PER_S))
    await asyncio.sleep(stage.seconds / 2)
    signalled_at = time.monotonic()
    stage.service.terminate()
    status = await stage.service.wait()
    ended_s = time.monotonic() - signalled_at
    records = await loading
    before = Tally(record for record in records if record.sent_at < signalled_at)
    after = Tally(record for record in records if record.sent_at >= signalled_at)
    note = (
        f"sent before: {_split(before)}; sent after: {_split(after)}; "
        f"exit status {status} after {ended_s:.1f} s (drain {DRAIN_S} s)"
    )
    await stage.service.start()
    return Finding(before + after, note)


async def _ask_until_answered(stage: Stage, request: Request, died: list[Record]) -> Record:
    sent_at = time.monotonic()
    while True:
        record = await ask(stage.service.address, request)
        if record.outcome not in DIED:
            return replace(record, sent_at=sent_at, seconds=time.monotonic() - sent_at)
        died.append(record)
        if time.monotonic() - sent_at > 3 * request.expected.deadline_s:
            return record
        await asyncio.sleep(RETRY_S)


def _split(tally: Tally) -> str:
    parts = [f"{tally.count(outcome)} {outcome}" for outcome in Outcome if tally.count(outcome)]
    return ", ".join(parts) or "none"


FAULTS = (
    Fault("kill -9", kill, has_redis=True),
    Fault("SIGTERM under load", terminate, {"PATRONUS_DRAIN_TIMEOUT_S": str(DRAIN_S)}),
)
