"""LitServe: python -m benchmarks.serving.peers.litserve BACKEND PORT"""

import sys
from typing import Any

import litserve
from fastapi import Request

from benchmarks.serving.whole_requests import Answer, Backend, WholeRequests, Work

MAX_BATCH_SIZE = 32
BATCH_TIMEOUT_S = 0.002


class Patronus(litserve.LitAPI):  # type: ignore[misc]
    """One worker; requests are decoded there, batched by LitServe, and answered together."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(max_batch_size=MAX_BATCH_SIZE, batch_timeout=BATCH_TIMEOUT_S)
        self.backend = backend

    def setup(self, device: str) -> None:
        self.model = WholeRequests(self.backend)

    def decode_request(self, request: Request) -> Work:
        body: Any = request  # LitServe hands over its JSON
        return self.model.parse(body)

    def batch(self, inputs: list[Work]) -> list[Work]:
        return inputs

    def predict(self, batch: list[Work]) -> list[Answer]:
        return self.model.run(batch)

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        return output

    def encode_response(self, output: Answer) -> Answer:
        return output


def main() -> None:
    backend, port = sys.argv[1], int(sys.argv[2])
    server = litserve.LitServer(
        Patronus(backend),  # type: ignore[arg-type]
        accelerator="cpu",
        workers_per_device=1,
        timeout=False,
        fast_queue=False,
    )
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )


if __name__ == "__main__":
    main()
