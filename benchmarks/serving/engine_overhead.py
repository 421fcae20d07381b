"""What our engine costs at a full batch: row-steps per second served, and of the runner by itself."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.request import urlopen

import uvloop

from benchmarks.machine import describe
from benchmarks.open_loop import run_closed_loop
from benchmarks.serving.servers import SERVERS, running
from benchmarks.serving.stand_in import StandInRunner
from benchmarks.serving.whole_requests import MAX_ROWS
from benchmarks.serving.workloads import Calls, Kind
from model.bundle import Bundle
from service.engine.runner import StepInputs

KIND = Kind(250, 4)
CLIENTS = 16
"""Twice as many as fill the batch."""
RAMP_UP_S = 1.5
FILE = "serving-engine-overhead.json"


@dataclass(frozen=True)
class EngineOverhead:
    """Row-steps per second of each window, served and alone."""

    machine: str
    command: str
    served: list[float]
    alone: list[float]

    @property
    def ratio(self) -> float:
        return statistics.median(self.served) / statistics.median(self.alone)

    def save(self, directory: Path) -> None:
        (directory / FILE).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, directory: Path) -> EngineOverhead | None:
        path = directory / FILE
        return cls(**json.loads(path.read_text())) if path.exists() else None


def measure_engine_overhead(bundle: Bundle, *, window_s: float, rounds: int, command: str) -> EngineOverhead:
    """The stand-in at 32 rows, turn about.

    Served: clients ask over HTTP for 4 images of 250 steps; the row-steps are those that the server itself
    counts while every row is in use. Alone: the same calls with nothing around them, in this process.
    """
    calls = Calls(bundle, seed=2)
    served, alone = [], []
    with running(SERVERS["ours"], "stand-in", calls.call(Kind(0))) as found:
        for _ in range(rounds):
            alone.append(_alone(bundle, window_s))
            served.append(uvloop.run(_served(found.url, calls, window_s)))
    return EngineOverhead(describe(), command, served, alone)


def _alone(bundle: Bundle, window_s: float) -> float:
    runner = StandInRunner(bundle.config, max_batch=MAX_ROWS)
    inputs = StepInputs.blank(MAX_ROWS, bundle.config.image.shape, bundle.config.num_prototypes)
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < window_s:
        runner.denoise_step(inputs)
        steps += 1
    return steps * MAX_ROWS / (time.perf_counter() - started)


async def _served(url: str, calls: Calls, window_s: float) -> float:
    asked = (calls.call(KIND) for _ in itertools.count())
    loading = asyncio.create_task(run_closed_loop(url, asked, clients=CLIENTS, timeout_s=120.0))
    try:
        await asyncio.sleep(RAMP_UP_S)
        before, started = await asyncio.to_thread(_row_steps, url), time.perf_counter()
        await asyncio.sleep(window_s)
        after, ended = await asyncio.to_thread(_row_steps, url), time.perf_counter()
    finally:
        loading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await loading
    return (after - before) / (ended - started)


def _row_steps(url: str) -> float:
    """How many the server has counted."""
    with urlopen(f"{url}/metrics") as response:
        for line in response.read().decode().splitlines():
            if line.startswith("patronus_denoise_steps_total "):
                return float(line.split()[1])
    raise ValueError("the server counts no row-steps")
