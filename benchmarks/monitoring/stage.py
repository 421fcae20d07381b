"""Redis, the shipped service and Prometheus together, under load."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.redis_process import RedisProcess, redis_process
from benchmarks.faults.service_process import REAL_SERVICE, service_process
from benchmarks.monitoring.load import SETTINGS, load
from benchmarks.monitoring.prometheus_process import PrometheusProcess, job_of, prometheus_process
from model.bundle import Bundle
from model.transforms import to_picture
from service.settings import SHIPPED_BUNDLE

POLL_S = 0.2


@dataclass(frozen=True)
class Stage:
    redis: RedisProcess
    prometheus: PrometheusProcess

    async def until(self, expression: str, *, within_s: float = 30.0) -> None:
        """Wait until an expression has a result. Raises TimeoutError."""
        end = time.monotonic() + within_s
        while not await self.prometheus.query(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"nothing for {expression} within {within_s:.0f} s")
            await asyncio.sleep(POLL_S)

    async def break_redis(self) -> None:
        """Kill Redis until Prometheus saw that the service noticed; start it until it is used again."""
        self.redis.kill()
        await self.until("patronus_cache_circuit_open == 1")
        await self.until("sum(rate(patronus_cache_errors_total[10s])) > 0")
        await self.redis.start()
        await self.until("patronus_cache_circuit_open == 0")


@asynccontextmanager
async def stage(directory: Path) -> AsyncIterator[Stage]:
    """All three, started, and clients that go on asking until the block ends."""
    with ExitStack() as processes:
        redis = processes.enter_context(redis_process(directory))
        await redis.start()
        settings = {**SETTINGS, "PATRONUS_CACHE_URL": redis.url}
        service = processes.enter_context(service_process(REAL_SERVICE, settings, directory / "service.log"))
        prometheus = processes.enter_context(prometheus_process(directory, job_of(service.address)))
        await asyncio.gather(service.start(), prometheus.start())
        async with load(service.address, _pictures()):
            yield Stage(redis, prometheus)


def _pictures() -> list[bytes]:
    """The reference images that the shipped bundle keeps, as files."""
    pictures = Bundle.load(SHIPPED_BUNDLE).pictures
    assert pictures is not None
    files = []
    for pixels in pictures.reference_images:
        buffer = io.BytesIO()
        to_picture(pixels).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files
