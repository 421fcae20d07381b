"""Ten times more requests than can be served."""

from __future__ import annotations

import asyncio
import time

import numpy as np

from benchmarks.faults.clients import closed_loop
from benchmarks.faults.outcomes import Outcome, Tally
from benchmarks.faults.service_process import ServiceProcess
from benchmarks.faults.stage import Fault, Finding, Stage

TIMES = 10.0
SECONDS_SCALE = 6.0
"""A minute where the other faults have ten seconds."""
STEPS = 50
DEADLINE_S = 5.0
NUM_CLIENTS = 64
NUM_SEEDS = 8
SAMPLE_S = 0.5
SETTLED = 0.25
"""Memory is called flat from after this share of the time on."""


async def overload(stage: Stage) -> Finding:
    """Open-loop arrivals at ten times the measured closed-loop capacity, each with a deadline of 5 s."""
    headers = {"X-Request-Timeout": f"{DEADLINE_S:g}"}
    calls = [stage.contract.generate(seed, STEPS, headers=headers) for seed in range(NUM_SEEDS)]
    requests = await stage.solo.requests(calls, refusals=[503, 504], deadline_s=DEADLINE_S)
    started_at = time.monotonic()
    capacity = Tally(
        await closed_loop(
            stage.service.address,
            lambda: requests[int(stage.rng.integers(NUM_SEEDS))],
            num_clients=NUM_CLIENTS,
            seconds=stage.seconds / 2,
        )
    )
    per_s = capacity.count(Outcome.OK) / (time.monotonic() - started_at)
    seconds = SECONDS_SCALE * stage.seconds
    rss: list[float] = []
    sampling = asyncio.create_task(_sample_rss(stage.service, rss))
    tally = Tally(await stage.load(requests, seconds=seconds, per_s=TIMES * per_s))
    sampling.cancel()
    p50, p99 = np.percentile(tally.ok_seconds, [50, 99]) if tally.ok_seconds else (np.nan, np.nan)
    settled = rss[int(SETTLED * len(rss)) :]
    by_status = ", ".join(f"{count} x {status}" for status, count in sorted(tally.statuses.items()))
    note = (
        f"capacity {per_s:.0f}/s, offered {tally.sent / seconds:.0f}/s for {seconds:g} s, answered "
        f"{tally.count(Outcome.OK) / seconds:.0f}/s, p50 {p50:.2f} s, p99 {p99:.2f} s of {DEADLINE_S:g} s; "
        f"{by_status}; memory {min(settled):.0f} to {max(settled):.0f} MiB after the first quarter"
    )
    return Finding(tally, note)


async def _sample_rss(service: ServiceProcess, rss: list[float]) -> None:
    while True:
        rss.append(service.resources.rss_mib)
        await asyncio.sleep(SAMPLE_S)


FAULTS = (Fault("ten times overload", overload),)
