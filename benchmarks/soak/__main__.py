"""Does the service grow, err or slow down when it simply goes on?

    python -m benchmarks.soak [--minutes 20] [--load 0.7]

The service as it is shipped (the bundle in `bundles/`, ONNX Runtime), in a process of its own, with a real
Redis. Its capacity of the mixed workload is measured closed-loop; then requests arrive at random at 0.7 of
that. A tenth of the clients leave early; Redis is killed and started again about every two minutes; a fifth
of the requests are compared with what they were answered alone, before the load. Memory is read every second,
and its slope is that of the second half.

Prints the tables, writes them to benchmarks/results/soak.md, and exits with 1 if a request hung, was lost or
was answered wrongly. Needs redis-server. Streamed answers are not part of the workload.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import uvloop

from benchmarks.faults.clients import closed_loop, open_loop
from benchmarks.faults.outcomes import Outcome, Record, Tally
from benchmarks.faults.redis_process import RedisProcess, redis_process
from benchmarks.faults.service_process import REAL_SERVICE, ServiceProcess, service_process
from benchmarks.machine import describe
from benchmarks.soak.report import faults_list, is_clean, kinds_table, memory_table, periods_table
from benchmarks.soak.watch import Sample, watch
from benchmarks.soak.workload import DEADLINE_S, LargestDifference, Workload
from model.bundle import Bundle
from model.transforms import to_picture
from service.settings import SHIPPED_BUNDLE

RESULT = Path(__file__).parents[1] / "results" / "soak.md"
SHARE_LEAVING = 0.1
NUM_CLIENTS = 16
"""Of the closed loop that measures capacity."""
CAPACITY_S = 20.0
REDIS_EVERY_S = 120.0
REDIS_SPREAD = (0.5, 1.5)
REDIS_DOWN_S = (2.0, 10.0)
IDLE_S = 3.0
MAX_PICTURES = 64


@dataclass(frozen=True)
class Soak:
    """What was measured; capacity and load in requests per second."""

    capacity: float
    load: float
    started_at: float
    records: list[Record]
    samples: list[Sample]
    before: Sample
    after: Sample
    num_redis_kills: int
    largest: LargestDifference


async def soak(*, minutes: float, share: float, capacity_s: float, redis_every_s: float) -> Soak:
    """Measure capacity, keep up `share` of it, and look at what becomes of the process."""
    rng = np.random.default_rng(0)
    bundle = Bundle.load(SHIPPED_BUNDLE)
    workload = Workload(bundle.config.num_prototypes, _pictures(bundle), rng)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with redis_process(directory) as redis:
            await redis.start()
            settings = {
                "PATRONUS_BUNDLE": str(SHIPPED_BUNDLE),
                "PATRONUS_CACHE_URL": redis.url,
                "PATRONUS_REQUEST_TIMEOUT_S": f"{DEADLINE_S:g}",
                "PATRONUS_LOG_LEVEL": "warning",
                "XDG_CACHE_HOME": name,
            }
            with service_process(REAL_SERVICE, settings, directory / "service.log") as service:
                await service.start()
                await workload.learn(service.address)
                capacity = await _capacity(service, workload, capacity_s)
                print(f"capacity {capacity:.2f} requests/s; load {share * capacity:.2f}", flush=True)
                before = Sample(time.monotonic(), service.resources)
                samples: list[Sample] = []
                started_at = time.monotonic()
                watching = asyncio.create_task(watch(service, samples))
                kills: list[float] = []
                restarting = asyncio.create_task(_restart_redis(redis, rng, redis_every_s, kills))
                records = await open_loop(
                    service.address,
                    lambda: workload.draw(leaving=SHARE_LEAVING),
                    per_s=share * capacity,
                    seconds=60.0 * minutes,
                    rng=rng,
                )
                for task in (watching, restarting):
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                await asyncio.sleep(IDLE_S)
                after = Sample(time.monotonic(), service.resources)
    return Soak(
        capacity,
        share * capacity,
        started_at,
        records,
        samples,
        before,
        after,
        len(kills),
        workload.largest,
    )


async def _capacity(service: ServiceProcess, workload: Workload, seconds: float) -> float:
    """Requests/s of the mixed workload that a few clients who ask again at once get answered."""
    started_at = time.monotonic()
    records = await closed_loop(service.address, workload.draw, num_clients=NUM_CLIENTS, seconds=seconds)
    return Tally(records).count(Outcome.OK) / (time.monotonic() - started_at)


async def _restart_redis(
    redis: RedisProcess, rng: np.random.Generator, every_s: float, kills: list[float]
) -> None:
    while True:
        await asyncio.sleep(every_s * rng.uniform(*REDIS_SPREAD))
        redis.kill()
        kills.append(time.monotonic())
        await asyncio.sleep(rng.uniform(*REDIS_DOWN_S))
        await redis.start()


def _pictures(bundle: Bundle) -> Sequence[bytes]:
    """Test images that the bundle keeps, as files. Raises RuntimeError for a bundle without any."""
    if bundle.pictures is None:
        raise RuntimeError(f"the bundle {bundle.name!r} keeps no pictures to ask about")
    files = []
    for pixels in bundle.pictures.reference_images[:MAX_PICTURES]:
        buffer = io.BytesIO()
        to_picture(pixels).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def report(found: Soak, command: str) -> str:
    largest = found.largest
    return "\n".join(
        [
            "# Soak",
            "",
            f"{describe()}; the shipped bundle with ONNX Runtime on the CPU.",
            f"Command: `{command}`",
            "",
            f"Capacity {found.capacity:.2f} requests/s (closed loop, {NUM_CLIENTS} clients), offered "
            f"{found.load:.2f}; {SHARE_LEAVING:.0%} of the clients leave early; Redis was killed "
            f"{found.num_redis_kills} times. Known answers differed by at most {largest.pixels:.0f} of 255 "
            f"in a pixel and {largest.activations:.1e} in an activation; {largest.num_compared} compared.",
            "",
            memory_table(found.samples, found.before, found.after),
            "",
            periods_table(found.records, found.started_at),
            "",
            kinds_table(found.records),
            "",
            faults_list(found.records),
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--load", type=float, default=0.7, help="share of the measured capacity")
    parser.add_argument("--capacity-s", type=float, default=CAPACITY_S, help="how long capacity is measured")
    parser.add_argument("--redis-every-s", type=float, default=REDIS_EVERY_S, help="mean time between kills")
    options = parser.parse_args()
    found = uvloop.run(
        soak(
            minutes=options.minutes,
            share=options.load,
            capacity_s=options.capacity_s,
            redis_every_s=options.redis_every_s,
        )
    )
    changed = "".join(
        f" --{name} {value:g}"
        for name, value, usual in (
            ("capacity-s", options.capacity_s, CAPACITY_S),
            ("redis-every-s", options.redis_every_s, REDIS_EVERY_S),
        )
        if value != usual
    )
    text = report(
        found, f"python -m benchmarks.soak --minutes {options.minutes:g} --load {options.load:g}{changed}"
    )
    print(text)
    RESULT.write_text(text)
    return 0 if is_clean(found.records) else 1


if __name__ == "__main__":
    sys.exit(main())
