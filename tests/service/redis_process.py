"""A real redis-server process for tests."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import redis

PASSWORD = "correct-horse"
START_S = 20.0


class Server:
    """A redis-server process on a port of its own, that can be frozen, stopped and started again, empty.

    With `certificate` (a PEM file that holds its key too) it speaks TLS, and nothing else.
    """

    def __init__(self, program: str, directory: Path, certificate: Path | None = None) -> None:
        self._program = program
        self._directory = directory
        self._certificate = certificate
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        address = f":{PASSWORD}@127.0.0.1:{self.port}/0"
        if self._certificate is None:
            return f"redis://{address}"
        return f"rediss://{address}?ssl_ca_certs={self._certificate}"

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def start(self) -> None:
        options = [*self._listening(), "--bind", "127.0.0.1", "--requirepass", PASSWORD]
        options += ["--save", "", "--appendonly", "no", "--dir", str(self._directory)]
        self._process = subprocess.Popen([self._program, *options], stdout=subprocess.DEVNULL)
        end = time.monotonic() + START_S
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.RedisError:
                assert self._process.poll() is None, f"redis-server does not take {options}"
                assert time.monotonic() < end, "redis-server does not answer"
                time.sleep(0.02)

    def freeze(self) -> None:
        """Have it accept connections and never answer, until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listening(self) -> Sequence[str]:
        if self._certificate is None:
            return ["--port", str(self.port)]
        pem = str(self._certificate)
        options = ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
        return [*options, "--tls-cert-file", pem, "--tls-key-file", pem, "--tls-ca-cert-file", pem]
