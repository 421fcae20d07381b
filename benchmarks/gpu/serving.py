"""What do the engine and the HTTP service add to the torch runner on a GPU?

    python -m benchmarks.gpu.serving [--out DIRECTORY] [--networks paper-64,fashion-mnist] [--rows 256]
        [--sections engine,http]

engine: row-steps per second at a full batch, of the runner alone and through the engine's thread, turn about,
and one image of 20 steps through it. http: `python -m service` with the torch backend and the shipped models,
what it can do in a closed loop, then open-loop loads (Poisson) as shares of that. The client runs on the same
machine. http needs the service's packages; where one is missing the section says which, and is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.gpu.call import Call, carry_out, option_parser
from benchmarks.gpu.networks import SHIPPED, Network, open_network, random_steps
from model.bundle import Bundle
from model.config import ModelConfig
from model.samplers import ddim
from model.schedule import NoiseSchedule
from service.engine.async_engine import AsyncEngine
from service.engine.engine_core import EngineCore
from service.engine.jobs import DenoiseJob
from service.engine.observer import SilentObserver
from service.engine.torch_runner import Precision, TorchRunner
from service.settings import BUNDLES, Device

ROWS = 256
NETWORKS = ("paper-64", "paper-32", "fashion-mnist")
SECTIONS = ("engine", "http")
JOB_IMAGES, JOB_STEPS = 4, 250
SINGLE_STEPS = 20
TARGET_OVERHEAD_PERCENT, TARGET_IMAGE_MS = 3.0, 30.0
WINDOW_S = 8.0
SHARES = (0.5, 0.8, 0.95, 1.2)
"""Of the closed loop's rate."""
NEEDED_BY_HTTP = (
    "fastapi",
    "uvicorn",
    "uvloop",
    "httptools",
    "pydantic",
    "multipart",
    "redis",
    "prometheus_client",
    "httpx",
    "click",
    "PIL",
)
ENGINE_S, HTTP_S = 75.0, 150.0
"""Of one network through the engine, and of one model over HTTP, for the budget."""
START_S = 180.0
"""For the service to import torch and to capture its graphs, at most."""
LOADS_S = 60.0
"""What a start leaves for loads and for the end of the service."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = option_parser(__doc__)
    parser.add_argument("--networks", help=f"through the engine (default: {','.join(NETWORKS)})")
    parser.add_argument("--rows", type=int, help=f"of a full batch (default: {ROWS})")
    parser.add_argument("--window-s", type=float, help=f"of each load over HTTP (default: {WINDOW_S:g})")
    parser.add_argument("--sections", default=",".join(SECTIONS))
    return carry_out(
        measure, parser, stem="serving", title="The engine and the service on a GPU", arguments=arguments
    )


def measure(call: Call, options: argparse.Namespace) -> None:
    rows = options.rows or (4 if call.rehearsal else ROWS)
    sections = options.sections.split(",")
    if "engine" in sections:
        with tempfile.TemporaryDirectory() as scratch:
            lines = []
            for name in call.chosen(options.networks, rehearsed=["tiny"], of=NETWORKS):
                if call.allows(0.0 if call.rehearsal else ENGINE_S, f"{name} through the engine"):
                    lines.append(_measure_engine(call, open_network(name, Path(scratch)), rows))
                    call.save()
        call.report.table(
            f"The engine, {rows} rows",
            (
                "network",
                "row-steps/s alone",
                "through the engine",
                "overhead",
                f"one image of {SINGLE_STEPS} steps, ms",
                "the runner's share of it, ms",
            ),
            lines,
        )
    if "http" in sections and call.has_packages("the service over HTTP", NEEDED_BY_HTTP):
        for name in SHIPPED[:1] if call.rehearsal else SHIPPED:
            if call.allows(0.0 if call.rehearsal else HTTP_S, f"{name} over HTTP"):
                window_s = options.window_s or (0.5 if call.rehearsal else WINDOW_S)
                asyncio.run(_measure_http(call, name, rows, window_s))
                call.save()


# --- the engine --------------------------------------------------------------------------------------


class RowSteps(SilentObserver):
    """Counts the rows of all steps, and of those after the first full one the steps that left a row empty."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.num_row_steps = 0
        self.num_partial = 0
        self.has_been_full = False

    def step_finished(self, rows: int, wasted: int) -> None:
        self.num_row_steps += rows
        self.has_been_full |= rows == self.capacity
        self.num_partial += self.has_been_full and rows < self.capacity


def _measure_engine(call: Call, network: Network, rows: int) -> list[str]:
    """One line of the table: alone and served turn about, then single images."""
    rounds, window_s = (1, 0.3) if call.rehearsal else (3, 5.0)
    on_gpu = call.device.type == "cuda"
    device: Device = "cuda" if on_gpu else "cpu"
    precision: Precision = "bf16" if on_gpu else "fp32"
    runner = TorchRunner(network.bundle, device=device, precision=precision, max_batch=rows)
    runner.warm_up()
    alone, served = [], []
    for _ in range(rounds):
        alone.append(_alone(runner, rows, window_s))
        rate, num_partial = asyncio.run(_served(runner, rows, window_s))
        served.append(rate)
        call.report.check(f"{network.name}: every step was full", num_partial == 0, f"{num_partial} were not")
    overhead = 100.0 * (1.0 - statistics.median(served) / statistics.median(alone))
    image_ms = asyncio.run(_single_images(runner, 3 if call.rehearsal else 30))
    one = random_steps(network.config, 1, seed=0)
    steps_ms = SINGLE_STEPS * 1e3 * _seconds(lambda: runner.denoise_step(one), 5 if call.rehearsal else 200)
    call.report.figure(
        "engine",
        network=network.name,
        backend=runner.backend,
        rows=rows,
        alone=alone,
        served=served,
        image_ms=image_ms,
        steps_ms=steps_ms,
    )
    name = f"overhead of the engine, {network.name} at {rows} rows"
    call.report.target(name, overhead, TARGET_OVERHEAD_PERCENT, "%", at_least=False)
    if network.name == "paper-32":
        name = f"one image of {SINGLE_STEPS} steps through the engine, {network.name}"
        call.report.target(name, statistics.median(image_ms), TARGET_IMAGE_MS, "ms", at_least=False)
    return [
        network.name,
        f"{statistics.median(alone):.5g}",
        f"{statistics.median(served):.5g}",
        f"{overhead:.1f}%",
        f"{statistics.median(image_ms):.1f}",
        f"{steps_ms:.1f}",
    ]


def _alone(runner: TorchRunner, rows: int, window_s: float) -> float:
    """Row-steps per second with nothing around the runner."""
    inputs = random_steps(runner.config, rows, seed=0)
    steps, started_at = 0, time.perf_counter()
    while time.perf_counter() - started_at < window_s:
        runner.denoise_step(inputs)
        steps += 1
    return steps * rows / (time.perf_counter() - started_at)


async def _served(runner: TorchRunner, rows: int, window_s: float) -> tuple[float, int]:
    """Row-steps per second through the engine's thread, twice as many samples waiting as have rows; and
    the steps of the window that were not full."""
    counts = RowSteps(rows)
    core = EngineCore(runner, max_queue=4 * rows, observer=counts)
    steps = min(JOB_STEPS, runner.config.schedule.num_timesteps)
    clients = max(2, 3 * rows // JOB_IMAGES)
    async with AsyncEngine(core, max_queue=4 * rows, drain_timeout_s=0.1) as engine:
        seeds = itertools.count()

        async def client() -> None:
            while True:
                await engine.denoise(_job(runner.config, JOB_IMAGES, steps, next(seeds)))

        tasks = [asyncio.create_task(client()) for _ in range(clients)]
        try:
            while not counts.has_been_full:
                await asyncio.sleep(0.01)
                _raise_first(tasks)
            rows_before, partial_before = counts.num_row_steps, counts.num_partial
            started_at = time.perf_counter()
            await asyncio.sleep(window_s)
            done = counts.num_row_steps - rows_before
            seconds = time.perf_counter() - started_at
            num_partial = counts.num_partial - partial_before
            _raise_first(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return done / seconds, num_partial


async def _single_images(runner: TorchRunner, count: int) -> list[float]:
    """Milliseconds of each of `count` images of 20 steps, one after the other."""
    core = EngineCore(runner, max_queue=8, observer=SilentObserver())
    found = []
    async with AsyncEngine(core, max_queue=8) as engine:
        for seed in range(count + 1):  # the first warms up
            job = _job(runner.config, 1, SINGLE_STEPS, seed)
            started_at = time.perf_counter()
            await engine.denoise(job)
            if seed:
                found.append(1e3 * (time.perf_counter() - started_at))
    return found


def _job(config: ModelConfig, images: int, steps: int, seed: int) -> DenoiseJob:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((images, *config.image.shape), np.float32)
    s = np.abs(rng.standard_normal((images, config.num_prototypes), np.float32))
    table = ddim(NoiseSchedule.from_config(config.schedule), steps, clip=1.0)
    return DenoiseJob(x, s, table, tuple(range(images)))


def _raise_first(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()


def _seconds(run: Callable[[], object], repeats: int) -> float:
    """Of one of them, the median."""
    found = []
    for _ in range(repeats):
        started_at = time.perf_counter()
        run()
        found.append(time.perf_counter() - started_at)
    return statistics.median(found)


# --- the service -------------------------------------------------------------------------------------


def start_allowance_s(call: Call) -> float:
    """How long the service may take to start, for its loads to end in time."""
    return START_S if call.rehearsal else min(START_S, call.budget.left_s - LOADS_S)


async def _measure_http(call: Call, name: str, rows: int, window_s: float) -> None:
    """Closed loop, then open-loop loads, of pictures of 20 steps and of encodings; a table for the model."""
    from benchmarks.faults.service_process import REAL_SERVICE, service_process
    from benchmarks.open_loop import Record, poisson_arrivals, run_closed_loop, run_open_loop, summarize
    from benchmarks.serving.workloads import Calls, Kind

    clients = 4 if call.rehearsal else 3 * rows
    environment = {
        "PATRONUS_BUNDLE": str(BUNDLES / name),
        "PATRONUS_BACKEND": "torch",
        "PATRONUS_DEVICE": call.device.type,
        "PATRONUS_MAX_BATCH": str(rows),
        "PATRONUS_MAX_QUEUE": str(8 * rows),
        "PATRONUS_LOG_LEVEL": "WARNING",
    }
    calls = Calls(Bundle.load(BUNDLES / name), seed=3)
    lines: list[list[str]] = []

    async def ask_closed(kind: Kind, clients: int, count: int, duration_s: float) -> list[Record]:
        asked = (calls.call(kind) for _ in range(count))
        records = await run_closed_loop(url, asked, clients=clients, timeout_s=60.0, duration_s=duration_s)
        failed = [record for record in records if not record.is_ok]
        what = f"{name}, {kind.name}, {clients} clients: every answer was 200"
        call.report.check(what, not failed, str(failed[:3]))
        return records

    async def ask_open(kind: Kind, share: float, rate: float, solo_s: float) -> None:
        arrivals = poisson_arrivals(
            (calls.call(kind) for _ in itertools.count()),
            rate=share * rate,
            duration_s=window_s,
            seed=round(100 * share),
        )
        records = await run_open_loop(url, arrivals, timeout_s=20.0)
        found = summarize(records, solo_s={kind.name: solo_s}, from_s=0.2 * window_s, until_s=window_s)
        times = [f"{1e3 * seconds:.1f}" for seconds in (found.p50_s, found.p95_s, found.p99_s)]
        counts = [str(found.num_rejected), str(found.num_errors)]
        lines.append([kind.name, f"{share:g} of it", f"{share * rate:.4g}", *times, *counts])
        call.report.figure("open_loop", model=name, share=share, rate=share * rate, **asdict(found))
        what = f"{name}, {kind.name} at {share:g}: no errors"
        call.report.check(what, found.num_errors == 0, f"{found.num_errors} of {found.num_requests}")

    with tempfile.TemporaryDirectory() as scratch:
        environment["XDG_CACHE_HOME"] = scratch  # the batch limit is measured anew
        with service_process(REAL_SERVICE, environment, Path(scratch) / "log") as service:
            started_s = await service.start(within_s=start_allowance_s(call))
            call.report.figure("service", model=name, settings=environment, started_s=started_s)
            url = f"http://{service.address.host}:{service.address.port}"
            for kind in (Kind(SINGLE_STEPS), Kind(0)):
                if not call.allows(0.0 if call.rehearsal else 3 * window_s, f"{name}, {kind.name}"):
                    continue
                alone = await ask_closed(kind, 1, 3 if call.rehearsal else 20, 60.0)
                solo_s = statistics.median(record.seconds for record in alone)
                full = await ask_closed(kind, clients, 10**9, window_s)
                # From a fifth on, when all clients have asked, to the end.
                ended = [record.due_s + record.seconds for record in full]
                rate = sum(0.2 * window_s <= end <= window_s for end in ended) / (0.8 * window_s)
                call.report.figure("closed_loop", model=name, kind=kind.name, solo_s=solo_s, rate=rate)
                lines.append([kind.name, "one client", f"{1 / solo_s:.4g}", f"{1e3 * solo_s:.1f}", *[""] * 4])
                lines.append([kind.name, f"{clients} clients", f"{rate:.4g}", *[""] * 5])
                for share in SHARES[:1] if call.rehearsal else SHARES:
                    what = f"{name}, {kind.name} at {share:g}"
                    if not rate:
                        call.report.skip(what, "no request was answered within a window")
                    elif call.allows(2 * window_s, what):
                        await ask_open(kind, share, rate, solo_s)
            service.terminate()
            status = await service.wait()
            is_orderly = status in (0, -signal.SIGTERM)  # uvicorn passes the signal on, once all is done
            call.report.check(f"{name}: the service ended in order", is_orderly, f"exit status {status}")
    call.report.table(
        f"{name} over HTTP, batches up to {rows}",
        ("request", "load", "requests/s", "p50 ms", "p95 ms", "p99 ms", "rejected", "errors"),
        lines,
    )


if __name__ == "__main__":
    sys.exit(main())
