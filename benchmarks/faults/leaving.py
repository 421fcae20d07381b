"""Clients that do not wait for their answers."""

from __future__ import annotations

import json
from dataclasses import replace

from benchmarks.faults.clients import Request
from benchmarks.faults.faulty_runner import ROW_S, STEP_S
from benchmarks.faults.outcomes import Outcome, Tally
from benchmarks.faults.stage import Fault, Finding, Stage

SHARE = 0.7


async def leave_early(stage: Stage) -> Finding:
    """70% close their connection at a random moment of the time that the answer takes at least."""
    mixture = [request for request in await stage.mixture() if b'"steps"' in request.call.body]
    requests = [_impatient(stage, request) for request in mixture for _ in range(10)]
    before = stage.contract.wasted_steps(await stage.metrics())
    tally = Tally(await stage.load(requests))
    wasted = stage.contract.wasted_steps(await stage.metrics()) - before
    num_left = tally.count(Outcome.LEFT)
    return Finding(tally, f"{wasted / max(1, num_left):.2f} row-steps wasted per client that left")


def _impatient(stage: Stage, request: Request) -> Request:
    if stage.rng.random() >= SHARE:
        return request
    solo_s = json.loads(request.call.body)["steps"] * (STEP_S + ROW_S)
    return replace(request, leaves_after_s=float(stage.rng.uniform(0.0, solo_s)))


FAULTS = (Fault("70% of clients leave early", leave_early),)
