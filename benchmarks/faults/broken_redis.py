"""A cache that is gone, silent, slow, or lies; and what happens when it is itself again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import statistics
import time
from collections.abc import Awaitable, Callable

from benchmarks.faults.calls import LostError, UnreachableError, send
from benchmarks.faults.contract import metric, picture_file
from benchmarks.faults.outcomes import Tally
from benchmarks.faults.stage import Fault, Finding, Stage

BACK_S = 20.0
POLL_S = 0.05

Change = Callable[[Stage], Awaitable[object]]


def _fault(name: str, breaks: Change, mends: Change) -> Fault:
    async def run(stage: Stage) -> Finding:
        """A third of the time it works, a third it is broken, a third it works again."""
        mixture = await stage.mixture()
        third_s = stage.seconds / 3
        whole = Tally(await stage.load(mixture, seconds=third_s))
        await breaks(stage)
        broken = Tally(await stage.load(mixture, seconds=third_s))
        circuit = metric(await stage.metrics(), "patronus_cache_circuit_open")
        await mends(stage)
        (hit_s, mended) = await asyncio.gather(_until_hit(stage), stage.load(mixture, seconds=third_s))
        errors = metric(await stage.metrics(), "patronus_cache_errors_total")
        note = (
            f"median answer {_median_ms(whole)} ms before, {_median_ms(broken)} ms meanwhile; "
            f"{errors:.0f} cache errors counted, circuit {'open' if circuit else 'closed'}; "
            f"hits again {hit_s:.1f} s after"
        )
        return Finding(whole + broken + Tally(mended), note)

    return Fault(name, run, has_redis=True)


async def _until_hit(stage: Stage) -> float:
    """Seconds until what was just encoded is known."""
    call = stage.contract.encode(picture_file(2000))
    started_at = time.monotonic()
    while time.monotonic() - started_at < BACK_S:
        with contextlib.suppress(UnreachableError, LostError, ValueError, LookupError):
            if stage.contract.is_cached(await send(stage.service.address, call)):
                return time.monotonic() - started_at
        await asyncio.sleep(POLL_S)
    return math.inf


def _median_ms(tally: Tally) -> str:
    return f"{1000 * statistics.median(tally.ok_seconds):.0f}" if tally.ok_seconds else "no"


async def _kill(stage: Stage) -> None:
    stage.redis.kill()


async def _start(stage: Stage) -> None:
    await stage.redis.start()


async def _freeze(stage: Stage) -> None:
    stage.redis.freeze()


async def _thaw(stage: Stage) -> None:
    stage.redis.thaw()


def _delay(seconds: float) -> Change:
    async def change(stage: Stage) -> None:
        stage.proxy.delay_s = seconds

    return change


def _speak(rubbish: bytes | None) -> Change:
    async def change(stage: Stage) -> None:
        stage.proxy.rubbish = rubbish

    return change


async def _fill_with_rubbish(stage: Stage) -> None:
    await stage.redis.fill_with_rubbish()


async def _leave(stage: Stage) -> None:
    """Rubbish is written over by the next answers."""


FAULTS = (
    _fault("Redis killed, back empty", _kill, _start),
    _fault("Redis frozen, thawed", _freeze, _thaw),
    _fault("Redis slow (20 ms a message)", _delay(0.02), _delay(0.0)),
    _fault("Redis slow (500 ms a message)", _delay(0.5), _delay(0.0)),
    _fault("Redis full of rubbish", _fill_with_rubbish, _leave),
    _fault("Redis answers rubbish", _speak(b"\x00HTTP/1.1 200 rubbish\r\n"), _speak(None)),
)
