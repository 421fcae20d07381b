"""mosec: python -m benchmarks.serving.peers.mosec BACKEND PORT

Its Rust front end holds the connections and makes the batches; the worker is a process of its own.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from mosec import Server, Worker

from benchmarks.serving.whole_requests import Answer, Backend, WholeRequests

MAX_BATCH_SIZE = 32
MAX_WAIT_MS = 1


class Patronus(Worker):  # type: ignore[misc]
    """Parses, runs and answers a batch."""

    def __init__(self) -> None:
        super().__init__()
        backend: Backend = os.environ["SERVING_BACKEND"]  # type: ignore[assignment]
        self.model = WholeRequests(backend)

    def forward(self, data: list[dict[str, Any]]) -> list[Answer]:
        return self.model.run([self.model.parse(body) for body in data])


def main() -> None:
    backend, port = sys.argv[1:]
    os.environ["SERVING_BACKEND"] = backend
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", port, "--timeout", "60000", "--log-level", "error"]
    server = Server()
    server.append_worker(
        Patronus,
        num=1,
        max_batch_size=MAX_BATCH_SIZE,
        max_wait_time=MAX_WAIT_MS,
        timeout=60,
        route="/predict",
    )
    server.run()


if __name__ == "__main__":
    main()
