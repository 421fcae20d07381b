"""BentoML: python -m benchmarks.serving.peers.bentoml BACKEND PORT"""

from __future__ import annotations

import os
import sys
from typing import Any

import bentoml

from benchmarks.serving.whole_requests import Answer, Backend, WholeRequests

MAX_BATCH_SIZE = 32
MAX_LATENCY_MS = 60_000


@bentoml.service(workers=1, traffic={"timeout": 120}, logging={"access": {"enabled": False}})
class Patronus:
    """Adaptive batching: the dispatcher learns how long a batch takes and how long to wait for more."""

    def __init__(self) -> None:
        backend: Backend = os.environ["SERVING_BACKEND"]  # type: ignore[assignment]
        self.model = WholeRequests(backend)

    @bentoml.api(  # type: ignore[untyped-decorator]
        batchable=True,
        max_batch_size=MAX_BATCH_SIZE,
        max_latency_ms=MAX_LATENCY_MS,
        route="/predict",
    )
    def predict(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        answers: list[Answer] = self.model.run([self.model.parse(body) for body in bodies])
        return answers


def main() -> None:
    backend, port = sys.argv[1], sys.argv[2]
    os.environ["SERVING_BACKEND"] = backend
    arguments = ["serve", "benchmarks.serving.peers.bentoml:Patronus", "--host", "127.0.0.1", "--port", port]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", *arguments])


if __name__ == "__main__":
    main()
