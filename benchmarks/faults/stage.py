"""What every fault is given to work with, and what it has to tell."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.faults.baseline import Baseline
from benchmarks.faults.clients import Request, open_loop
from benchmarks.faults.contract import Contract, picture_file
from benchmarks.faults.outcomes import Record, Tally
from benchmarks.faults.redis_process import RedisProcess
from benchmarks.faults.service_process import ServiceProcess
from benchmarks.faults.solo_answers import SoloAnswers
from benchmarks.faults.tcp_proxy import TcpProxy

STEPS = (10, 20, 50)
IMAGES = (1, 4)
NUM_SEEDS = 4
NUM_PICTURES = 8
PROBE_IMAGES = 16
"""Many rows, so that a service that has become slow with batches is not taken for what it was."""
LOAD_PER_S = 25.0
"""About half of what the stand-in can do of this mixture."""


@dataclass(frozen=True)
class Stage:
    """A running service, its contract, right answers, and for how long load is kept up.

    redis and proxy stand between the service and its cache where the fault is about that.
    """

    service: ServiceProcess
    contract: Contract
    solo: SoloAnswers
    seconds: float
    rng: np.random.Generator
    redis: RedisProcess
    proxy: TcpProxy

    async def mixture(
        self,
        *,
        refusals: Sequence[int] = (),
        deadline_s: float = 20.0,
        headers: Mapping[str, str] | None = None,
    ) -> list[Request]:
        """Generating with 10, 20 and 50 steps, 1 and 4 images; and encoding, a quarter of all."""
        calls = [
            self.contract.generate(100 * seed, steps, num_images=count, headers=headers)
            for seed in range(NUM_SEEDS)
            for steps in STEPS
            for count in IMAGES
        ]
        calls += [self.contract.encode(picture_file(seed)) for seed in range(NUM_PICTURES)]
        return await self.solo.requests(calls, refusals=refusals, deadline_s=deadline_s)

    async def load(
        self, requests: Sequence[Request], *, seconds: float | None = None, per_s: float = LOAD_PER_S
    ) -> list[Record]:
        """Requests drawn from `requests`, arriving at random."""

        def draw() -> Request:
            return requests[int(self.rng.integers(len(requests)))]

        seconds = self.seconds if seconds is None else seconds
        return await open_loop(self.service.address, draw, per_s=per_s, seconds=seconds, rng=self.rng)

    async def metrics(self) -> str:
        """The service's Prometheus text. Raises RuntimeError where it gives none."""
        reply = await self.service.get("/metrics")
        if reply is None:
            raise RuntimeError("/metrics is not answered")
        return reply.body.decode()


@dataclass(frozen=True)
class Finding:
    """How requests ended; `ended_at` (monotonic) is when the fault was lifted and the load was over."""

    tally: Tally
    note: str = ""
    ended_at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Fault:
    """One line of the table: what happens, with which settings (PATRONUS_*) the service meets it."""

    name: str
    run: Callable[[Stage], Awaitable[Finding]]
    settings: Mapping[str, str] = field(default_factory=dict)
    has_redis: bool = False


@dataclass(frozen=True)
class Row:
    """A fault and what came of it; `back_s` is infinite where baseline was not reached, memory in MiB."""

    name: str
    finding: Finding
    back_s: float
    rss_before_mib: float
    rss_after_mib: float


async def observe(fault: Fault, stage: Stage) -> Row:
    """Measure, let the fault happen, and wait until the service is as it was."""
    (probe,) = await stage.solo.requests([stage.contract.generate(7, 20, num_images=PROBE_IMAGES)])
    baseline = Baseline(stage.service, stage.contract, probe)
    await stage.load(await stage.mixture(), seconds=min(2.0, stage.seconds))  # memory settles
    await baseline.measure()
    before = stage.service.resources
    finding = await fault.run(stage)
    back_s, oddity = await baseline.seconds_back(finding.ended_at)
    after = stage.service.resources
    note = "; ".join(part for part in (finding.note, oddity) if part)
    finding = Finding(finding.tally, note, finding.ended_at)
    return Row(fault.name, finding, back_s, before.rss_mib, after.rss_mib)
