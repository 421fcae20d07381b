"""The service in a process of its own, that can be killed, stopped in order, and looked at from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.calls import Address, Call, LostError, Reply, UnreachableError, send

ROOT = Path(__file__).parents[2]
START_S = 60.0
STOP_S = 45.0
POLL_S = 0.02
FAULTY_SERVICE = "benchmarks.faults.faulty_service"
REAL_SERVICE = "service"


@dataclass(frozen=True)
class Resources:
    """Of a process, from /proc: resident memory in MiB, threads, and open file descriptors."""

    rss_mib: float
    num_threads: int
    num_files: int

    @classmethod
    def of(cls, pid: int) -> Resources:
        """Raises OSError for a process that is gone."""
        lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        status = {words[0]: words[1] for words in lines if len(words) > 1}
        num_files = len(os.listdir(f"/proc/{pid}/fd"))
        return cls(int(status["VmRSS:"]) / 1024, int(status["Threads:"]), num_files)


class ServiceProcess:
    """`python -m MODULE` with PATRONUS_* settings, on a port that it keeps from one start to the next."""

    def __init__(self, module: str, environment: Mapping[str, str], log: Path) -> None:
        self.address = Address("127.0.0.1", free_port())
        self._command = [sys.executable, "-m", module]
        own = {"PATRONUS_HOST": self.address.host, "PATRONUS_PORT": str(self.address.port)}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PATRONUS_")}
        self._environment = {**kept, **own, **environment}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def resources(self) -> Resources:
        return Resources.of(self.pid)

    @property
    def exit_status(self) -> int | None:
        return None if self._process is None else self._process.poll()

    async def start(self, *, within_s: float = START_S) -> float:
        """Start it; gives the seconds until it was ready."""
        started_at = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )
        while True:
            if self._process.poll() is not None or time.monotonic() - started_at > within_s:
                raise RuntimeError(f"the service did not start:\n{self._log.read_text()[-2000:]}")
            reply = await self.get("/readyz")
            if reply is not None and reply.status == 200:
                return time.monotonic() - started_at
            await asyncio.sleep(POLL_S)

    async def get(self, path: str, *, patience_s: float = 5.0) -> Reply | None:
        """The answer to a GET, None where there is none."""
        try:
            async with asyncio.timeout(patience_s):
                return await send(self.address, Call("GET", path))
        except (TimeoutError, UnreachableError, LostError):
            return None

    def terminate(self) -> None:
        """SIGTERM, and no waiting."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    async def wait(self) -> int:
        """The exit status, once it has ended. Raises TimeoutError."""
        assert self._process is not None
        async with asyncio.timeout(STOP_S):
            while (status := self._process.poll()) is None:
                await asyncio.sleep(POLL_S)
        return status

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def service_process(module: str, environment: Mapping[str, str], log: Path) -> Iterator[ServiceProcess]:
    """A service that is not started yet, and does not outlive the block."""
    service = ServiceProcess(module, environment, log)
    try:
        yield service
    finally:
        service.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
