"""A network that raises, runs out of memory, gives nonsense, or does not come back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

from benchmarks.faults.calls import Call
from benchmarks.faults.clients import Request, ask
from benchmarks.faults.contract import metric, poisoned_picture_file
from benchmarks.faults.faulty_runner import Command
from benchmarks.faults.outcomes import Expected, Outcome, Record, Tally, never_ok
from benchmarks.faults.stage import Fault, Finding, Stage

STEPS = 20
NUM_COMMANDS = 20
RAISES_S = 1.0
HANGS_S = 12.0
STEP_TIMEOUT_S = 8.0
DEADLINE_S = 10.0
POLL_S = 0.05


async def poisoned_item(stage: Stage) -> Finding:
    """Some requests make every call raise that holds them, or come out as NaN; the others must not notice."""
    bad = [
        _refused(stage.contract.faulty(Command.POISON, STEPS), 500),
        _refused(stage.contract.faulty(Command.NOT_FINITE, STEPS), 422),
        _refused(stage.contract.encode(poisoned_picture_file()), 500),
    ]

    good, poisoned = await asyncio.gather(
        stage.load(await stage.mixture()), _spread(stage, bad * NUM_COMMANDS)
    )
    return Finding(Tally(good) + Tally(poisoned), f"{len(poisoned)} of the requests were the poisoned ones")


async def raises_once(stage: Stage) -> Finding:
    """A call raises now and then, and the same call again does not: nobody should notice.

    A call that holds one row alone is not tried again, so the request that made it raise may fail itself.
    """
    calls = [stage.contract.faulty(Command.RAISES, STEPS, nonce=i) for i in range(NUM_COMMANDS)]
    carriers = [Request(call, Expected(_anything, frozenset([500]))) for call in calls]
    good, carried = await asyncio.gather(stage.load(await stage.mixture()), _spread(stage, carriers))
    alone = Tally(carried).count(Outcome.REFUSED)
    return Finding(Tally(good) + Tally(carried), f"{len(carried)} calls raised, {alone} of one row alone")


async def raises_for_a_while(stage: Stage) -> Finding:
    """Every call raises for a second: what is asked then is answered with 500, what comes later rightly."""
    carrier = _refused(stage.contract.faulty(Command.RAISES, STEPS, seconds=RAISES_S), 500)
    return await _in_the_middle_of_load(stage, carrier, [500], f"every call raises for {RAISES_S:g} s")


async def out_of_memory(stage: Stage) -> Finding:
    """For half the time no more than 4 rows fit: slower, but right."""
    call = stage.contract.faulty(Command.OUT_OF_MEMORY, STEPS, seconds=stage.seconds / 2, rows=4)
    finding = await _in_the_middle_of_load(stage, Request(call, Expected(_anything)), [], "")
    count = metric(await stage.metrics(), "patronus_engine_out_of_memory_total")
    return Finding(finding.tally, f"{count:.0f} calls did not fit", finding.ended_at)


async def no_memory_at_all(stage: Stage) -> Finding:
    """For a second not even one row fits: refused with 503."""
    carrier = _refused(stage.contract.faulty(Command.OUT_OF_MEMORY, STEPS, seconds=RAISES_S), 503)
    return await _in_the_middle_of_load(stage, carrier, [503], f"for {RAISES_S:g} s")


async def hanging_step(stage: Stage) -> Finding:
    """One call takes 12 s. Readiness and liveness are watched; deadlines must hold all the same."""
    headers = {"X-Request-Timeout": f"{DEADLINE_S:g}"}
    mixture = await stage.mixture(refusals=[503, 504], deadline_s=DEADLINE_S, headers=headers)
    carrier = Request(
        stage.contract.faulty(Command.HANGS, STEPS, seconds=HANGS_S),
        Expected(_anything, deadline_s=HANGS_S + DEADLINE_S),
    )
    loading = asyncio.create_task(stage.load(mixture, seconds=max(stage.seconds, HANGS_S + 3.0)))
    await asyncio.sleep(1.0)
    hangs_from = time.monotonic()
    carrying = asyncio.create_task(ask(stage.service.address, carrier))
    ready_s, ready = await _seconds_until(stage, "/readyz", 503, hangs_from)
    alive_s, alive = await _seconds_until(stage, "/healthz", 503, hangs_from)
    again_s, _ = await _seconds_until(stage, "/readyz", 200, hangs_from)
    records = [await carrying, *await loading]
    note = (
        f"/readyz 503 after {ready_s:.1f} s ({ready}), /healthz 503 after {alive_s:.1f} s ({alive}), "
        f"/readyz 200 {again_s - HANGS_S:+.1f} s after the step came back"
    )
    return Finding(Tally(records), note)


async def _spread(stage: Stage, requests: Sequence[Request]) -> list[Record]:
    """Send them evenly over the time of the load."""
    asking: list[asyncio.Task[Record]] = []
    for request in requests:
        await asyncio.sleep(stage.seconds / len(requests))
        asking.append(asyncio.create_task(ask(stage.service.address, request)))
    return list(await asyncio.gather(*asking))


async def _in_the_middle_of_load(
    stage: Stage, carrier: Request, refusals: Sequence[int], note: str
) -> Finding:
    loading = asyncio.create_task(stage.load(await stage.mixture(refusals=refusals)))
    await asyncio.sleep(stage.seconds / 4)
    carried = await ask(stage.service.address, carrier)
    return Finding(Tally([carried, *await loading]), note)


async def _seconds_until(stage: Stage, path: str, status: int, since: float) -> tuple[float, str]:
    while time.monotonic() - since < HANGS_S + DEADLINE_S:
        reply = await stage.service.get(path)
        if reply is not None and reply.status == status:
            return time.monotonic() - since, str(json.loads(reply.body)["reason"])
        await asyncio.sleep(POLL_S)
    return float("inf"), "never"


def _refused(call: Call, status: int) -> Request:
    return Request(call, Expected(never_ok, frozenset([status])))


def _anything(reply: object) -> None:
    """The picture of a request that carries a command is of no interest."""


FAULTS = (
    Fault("one poisoned item in a batch", poisoned_item),
    Fault("the step raises, once", raises_once),
    Fault("the step raises, for 1 s", raises_for_a_while),
    Fault("out of memory over 4 rows", out_of_memory),
    Fault("out of memory for 1 row", no_memory_at_all),
    Fault("a step hangs for 12 s", hanging_step, {"PATRONUS_STEP_TIMEOUT_S": f"{STEP_TIMEOUT_S:g}"}),
)
