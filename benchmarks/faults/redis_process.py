"""A real redis-server process that can be killed, frozen and filled with rubbish."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from benchmarks.faults.service_process import free_port

START_S = 20.0
POLL_S = 0.02


class RedisProcess:
    """On a port of its own; what it holds is lost when it is killed."""

    def __init__(self, program: str, directory: Path) -> None:
        self.port = free_port()
        self._command = [program, "--port", str(self.port), "--bind", "127.0.0.1"]
        self._command += ["--save", "", "--appendonly", "no", "--dir", str(directory)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + START_S
        async with self._client() as client:
            while True:
                try:
                    await client.ping()
                    return
                except RedisError:
                    if self._process.poll() is not None or time.monotonic() > end:
                        raise RuntimeError("redis-server did not start") from None
                    await asyncio.sleep(POLL_S)

    def freeze(self) -> None:
        """Have it accept connections and never answer, until `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def fill_with_rubbish(self) -> int:
        """Replace what it holds, in turn by bytes, another key's value, a list, and a cut value; how many."""
        async with self._client() as client:
            keys = sorted(await client.keys("*"))
            values: dict[bytes | str, bytes] = {}
            for key in keys:
                if await client.type(key) == b"string":
                    value = await client.get(key)
                    values[key] = value if isinstance(value, bytes) else b""
            whole = list(values)
            for i, (key, value) in enumerate(values.items()):
                await client.delete(key)
                if i % 4 == 2:
                    await client.rpush(key, b"no string")
                else:
                    others = values[whole[i - 1]]
                    await client.set(key, (b"rubbish" * 10, others, b"", value[: len(value) // 2])[i % 4])
            return len(values)

    def _client(self) -> Redis:
        return Redis(host="127.0.0.1", port=self.port)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextmanager
def redis_process(directory: Path) -> Iterator[RedisProcess]:
    """A Redis that is not started yet, and does not outlive the block. Raises RuntimeError without one."""
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("redis-server is not on the PATH: Debian's package is redis-server")
    server = RedisProcess(program, directory)
    try:
        yield server
    finally:
        server.kill()
