"""Ray Serve: python -m benchmarks.serving.peers.ray_serve BACKEND PORT"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import tempfile
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.serving.whole_requests import Answer, Backend, WholeRequests, Work

MAX_BATCH_SIZE = 32
BATCH_WAIT_TIMEOUT_S = 0.01


@serve.deployment(
    num_replicas=1, max_ongoing_requests=4096, max_queued_requests=-1, ray_actor_options={"num_cpus": 1}
)
class Patronus:
    """One replica; `@serve.batch` gathers what its event loop parsed, a thread runs the batch."""

    def __init__(self, backend: Backend) -> None:
        self.model = WholeRequests(backend)

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=BATCH_WAIT_TIMEOUT_S)
    async def run(self, batch: list[Work]) -> list[Answer]:
        return await asyncio.to_thread(self.model.run, batch)

    async def __call__(self, request: Request) -> Answer:
        body: dict[str, Any] = await request.json()
        answer: Answer = await self.run(self.model.parse(body))
        return answer


def main() -> None:
    backend, port = sys.argv[1], int(sys.argv[2])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=tempfile.gettempdir(),
    )
    serve.start(
        http_options={"host": "127.0.0.1", "port": port},
        logging_config={"log_level": "ERROR", "enable_access_log": False},
    )
    serve.run(Patronus.bind(backend), route_prefix="/predict")  # type: ignore[attr-defined]
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()  # type: ignore[no-untyped-call]
    ray.shutdown()


if __name__ == "__main__":
    main()
