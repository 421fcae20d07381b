"""The servers that are compared: how each is started, asked, and ended whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from benchmarks.http_connections import Call
from benchmarks.open_loop import ask
from benchmarks.serving.whole_requests import Backend

ROOT = Path(__file__).parents[2]
PEERS_PYTHON = ROOT / ".venv" / "peers" / "bin" / "python"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
PR_SET_PDEATHSIG = 1


class ServerError(Exception):
    """A server did not start, or gave a wrong answer; the message holds the end of its log."""


@dataclass(frozen=True)
class Server:
    """One of those compared.

    module: run with BACKEND and PORT; settings: the best of a few that were tried, as the tables name
    them; package: whose version is told; path: where its requests go, None for our own paths; wraps: what
    goes around a body.
    """

    name: str
    title: str
    module: str
    settings: str
    package: str
    path: str | None = "/predict"
    wraps: tuple[bytes, bytes] = (b"", b"")
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def python(self) -> str:
        return sys.executable if self.path is None else os.environ.get("PEERS_PYTHON", str(PEERS_PYTHON))

    def call(self, call: Call) -> Call:
        """The same request as this server wants it."""
        before, after = self.wraps
        return replace(call, path=self.path or call.path, body=before + call.body + after)


SERVERS = {
    server.name: server
    for server in (
        Server(
            "ours", "ours", "benchmarks.serving.ours", "defaults, no access log", "patronus-server", path=None
        ),
        Server(
            "litserve",
            "LitServe",
            "benchmarks.serving.peers.litserve",
            "max_batch_size 32, batch_timeout 2 ms, 1 API server",
            "litserve",
        ),
        Server(
            "bentoml",
            "BentoML",
            "benchmarks.serving.peers.bentoml",
            "batchable, max_batch_size 32, max_latency_ms 60000",
            "bentoml",
            wraps=(b'{"bodies":[', b"]}"),
            environment={"BENTOML_DO_NOT_TRACK": "True"},
        ),
        Server(
            "ray",
            "Ray Serve",
            "benchmarks.serving.peers.ray_serve",
            "@serve.batch, max_batch_size 32, batch_wait_timeout_s 0.01, RAY_SERVE_THROUGHPUT_OPTIMIZED",
            "ray",
            # Its workers would give way to everybody else on the machine, the client included.
            environment={
                "RAY_worker_niceness": "0",
                "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
                "RAY_USAGE_STATS_ENABLED": "0",
            },
        ),
        Server(
            "mosec",
            "mosec",
            "benchmarks.serving.peers.mosec",
            "max_batch_size 32, max_wait_time 1 ms",
            "mosec",
        ),
    )
}


@dataclass(frozen=True)
class Running:
    """A server that answers at `url`."""

    server: Server
    url: str
    log: Path

    @property
    def version(self) -> str:
        """Of the server's package, in the environment it runs in."""
        code = f"import importlib.metadata as m; print(m.version({self.server.package!r}))"
        found = subprocess.run([self.server.python, "-c", code], capture_output=True, text=True, check=True)
        return found.stdout.strip()

    def ask(self, call: Call, timeout_s: float) -> bytes:
        """One answer. Raises ServerError unless it is 200."""
        answer = asyncio.run(ask(self.url, self.server.call(call), timeout_s=timeout_s))
        if answer.status != 200:
            raise ServerError(f"{self.server.name} answered {answer.status}: {answer.body[:300]!r}")
        return answer.body


@contextlib.contextmanager
def running(server: Server, backend: Backend, first_call: Call) -> Iterator[Running]:
    """Start a server on a free port and wait until it answers `first_call`; end it and all it started."""
    directory = Path(tempfile.mkdtemp(prefix=f"serving-{server.name}-"))
    port, log = _free_port(), directory / "log"
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PATRONUS_")}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(directory),
        "TMPDIR": str(directory),
        "PYTHONWARNINGS": "ignore",
        # Of NumPy; ONNX Runtime has threads of its own.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        **server.environment,
    }
    command = [server.python, "-m", server.module, backend, str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        found = Running(server, f"http://127.0.0.1:{port}", log)
        _wait_until_it_answers(found, process, first_call)
        yield found
    finally:
        _end(process, directory)


def _wait_until_it_answers(found: Running, process: subprocess.Popen[bytes], call: Call) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            found.ask(call, timeout_s=10.0)
            return
        except (ServerError, OSError, TimeoutError) as error:
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise ServerError(
                    f"{found.server.name} does not answer ({error})\n{_end_of(found.log)}"
                ) from error
        time.sleep(0.25)


def _end(process: subprocess.Popen[bytes], directory: Path) -> None:
    """SIGTERM, then SIGKILL for everything that descends from it or works in its directory."""
    started = _descendants(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
    left = {*started, *_descendants(process.pid), *_living_in(directory)}
    for other in left:
        with contextlib.suppress(psutil.Error):
            other.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(left, timeout=STOP_TIMEOUT_S)
    shutil.rmtree(directory, ignore_errors=True)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _living_in(directory: Path) -> list[psutil.Process]:
    """Processes that were given this server's own temporary directory, daemons among them."""
    found = []
    for other in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if other.environ().get("TMPDIR") == str(directory):
                found.append(other)
    return found


def _die_with_parent() -> None:
    """Runs in the child: SIGTERM when this program is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
