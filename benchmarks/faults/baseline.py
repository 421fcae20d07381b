"""How the service was before a fault, and how long it takes until it is so again."""

from __future__ import annotations

import asyncio
import math
import statistics
import time

from benchmarks.faults.clients import Request, ask
from benchmarks.faults.contract import Contract
from benchmarks.faults.outcomes import Outcome
from benchmarks.faults.service_process import ServiceProcess

NUM_PROBES = 5
TOLERANCE = 1.5
"""Back at baseline is a probe within this many times what it took before."""
IDLE_S = 3.0
"""Gauges must be zero within this time after the last request, before anybody asks for anything new."""
PATIENCE_S = 60.0
POLL_S = 0.02


class Baseline:
    """The latency of one request on an idle service; `probe_s` is known after `measure`."""

    def __init__(self, service: ServiceProcess, contract: Contract, probe: Request) -> None:
        self._service = service
        self._contract = contract
        self._probe = probe
        self.probe_s = math.nan

    async def measure(self) -> None:
        """Raises RuntimeError where the idle service does not answer rightly."""
        times = [await self._time() for _ in range(NUM_PROBES)]
        if not all(map(math.isfinite, times)):
            raise RuntimeError("the idle service does not answer a probe as it should")
        self.probe_s = statistics.median(times)

    async def seconds_back(self, since: float) -> tuple[float, str]:
        """Seconds from `since` until gauges are zero and a probe is as fast as before; and what was odd."""
        oddity = ""
        end = time.monotonic() + IDLE_S
        while (busy := await self._busy()) != 0.0:
            if time.monotonic() > end:
                oddity = f"gauges still add up to {busy:g} after {IDLE_S:g} s without requests"
                break
            await asyncio.sleep(POLL_S)
        while time.monotonic() - since < PATIENCE_S:
            seconds = await self._time()
            if seconds <= TOLERANCE * self.probe_s and await self._busy() == 0.0:
                return time.monotonic() - since, oddity
            await asyncio.sleep(POLL_S)
        return math.inf, oddity

    async def _time(self) -> float:
        record = await ask(self._service.address, self._probe)
        return record.seconds if record.outcome is Outcome.OK else math.inf

    async def _busy(self) -> float:
        reply = await self._service.get("/metrics")
        return math.inf if reply is None else self._contract.busy(reply.body.decode())
