"""Images per second of one service, two behind the proxy, and one and two replicas under Ray Serve.

    python -m benchmarks.capacity [--rounds 3] [--seconds 20] [--clients 64] [--threads 1]

Generates with 20 steps, one image a request, in a closed loop that keeps them full. Each in turn has the
machine to itself, as often as there are rounds; an engine has `--threads` threads for a network call. Writes
benchmarks/results/capacity.md. Without haproxy on the PATH the row of the proxy is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import uvloop

from benchmarks.faults.service_process import REAL_SERVICE, ROOT, free_port, service_process
from benchmarks.machine import describe
from benchmarks.open_loop import run_closed_loop
from benchmarks.ray_cluster.process import ray_process
from benchmarks.result_file import RESULTS
from benchmarks.serving.workloads import WORKLOADS, Calls
from model.bundle import Bundle
from service.settings import SHIPPED_BUNDLE

WORK = WORKLOADS["generate-20"]
WARM_UP = 0.25
"""Of the seconds measured, before them."""
TIMEOUT_S = 120.0
START_S = 30.0
HAPROXY_CONFIG = ROOT / "deploy" / "haproxy" / "haproxy.cfg"


@dataclass(frozen=True)
class Window:
    """images_per_s: answered; busy_cores: of the machine; client_cores: of them, this program's."""

    images_per_s: float
    busy_cores: float
    client_cores: float
    num_failed: int


@dataclass(frozen=True)
class SetUp:
    """One way to serve; `serve` gives its URL for as long as its block lasts."""

    title: str
    num_engines: int
    serve: Callable[[Path, Mapping[str, str]], Iterator[str]]
    windows: list[Window] = field(default_factory=list)

    def median(self, name: str) -> float:
        values: list[float] = [getattr(window, name) for window in self.windows]
        return statistics.median(values)


def main() -> int:
    options = _options()
    set_ups = [SetUp("one service", 1, one_service), SetUp("Ray Serve, one replica", 1, ray_replicas(1))]
    if shutil.which("haproxy") is not None:
        set_ups.append(SetUp("two services behind HAProxy", 2, two_behind_haproxy))
    set_ups.append(SetUp("Ray Serve, two replicas", 2, ray_replicas(2)))
    for number in range(options.rounds):
        first = number % len(set_ups)
        for set_up in [*set_ups[first:], *set_ups[:first]]:
            window = measure(
                set_up, seconds=options.seconds, clients=options.clients, threads=options.threads
            )
            set_up.windows.append(window)
            print(f"round {number + 1}, {set_up.title}: {window}", flush=True)
    text = report(set_ups, "python -m benchmarks.capacity " + " ".join(sys.argv[1:]), options.threads)
    options.result.write_text(text)
    print(text)
    return 0


def measure(set_up: SetUp, *, seconds: float, clients: int, threads: int) -> Window:
    """Start it, fill it, count what it answers, end it."""
    environment = {
        "PATRONUS_BUNDLE": str(SHIPPED_BUNDLE),
        "PATRONUS_LOG_LEVEL": "WARNING",  # no access log
        "PATRONUS_NUM_THREADS": str(threads),
        "OMP_NUM_THREADS": "1",
    }
    with tempfile.TemporaryDirectory(prefix="capacity-") as name:
        environment |= {"PATRONUS_STATE_DIR": f"{name}/state", "XDG_CACHE_HOME": f"{name}/cache"}
        with contextmanager(set_up.serve)(Path(name), environment) as url:
            calls = Calls(Bundle.load(SHIPPED_BUNDLE), seed=0).in_turn(WORK)
            warm_up_s, until_s = WARM_UP * seconds, (1 + WARM_UP) * seconds
            psutil.cpu_percent()
            before, cpu_before = time.perf_counter(), time.process_time()
            loop = run_closed_loop(url, calls, clients=clients, timeout_s=TIMEOUT_S, duration_s=until_s)
            records = uvloop.run(loop)
            took_s, cpu_s = time.perf_counter() - before, time.process_time() - cpu_before
            busy = psutil.cpu_percent() / 100 * (psutil.cpu_count() or 1)
    done = [one for one in records if one.is_ok and warm_up_s < one.due_s + one.seconds <= until_s]
    num_failed = sum(not one.is_ok for one in records)
    return Window(len(done) / seconds, round(busy, 2), round(cpu_s / took_s, 2), num_failed)


def one_service(directory: Path, environment: Mapping[str, str]) -> Iterator[str]:
    with service_process(REAL_SERVICE, environment, directory / "service.log") as service:
        asyncio.run(service.start())
        yield f"http://{service.address.host}:{service.address.port}"


def two_behind_haproxy(directory: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """deploy/haproxy/haproxy.cfg, with addresses in place of names."""
    with ExitStack() as running:
        ports = []
        for number in range(2):
            log = directory / f"service-{number}.log"
            service = running.enter_context(service_process(REAL_SERVICE, environment, log))
            asyncio.run(service.start())
            ports.append(service.address.port)
        url = running.enter_context(_haproxy(directory, ports))
        yield url


def ray_replicas(count: int) -> Callable[[Path, Mapping[str, str]], Iterator[str]]:
    def serve(directory: Path, environment: Mapping[str, str]) -> Iterator[str]:
        with ray_process(directory, environment) as cluster:
            cluster.deploy(num_replicas=count)
            cluster.until_running(count)
            yield cluster.url

    return serve


@contextmanager
def _haproxy(directory: Path, ports: Sequence[int]) -> Iterator[str]:
    port, health = free_port(), free_port()
    text = HAPROXY_CONFIG.read_text()
    text = re.sub(r"(?ms)^resolvers containers.*?\n\n", "", text)
    text = text.replace(" resolvers containers resolve-prefer ipv4 init-addr none", "")
    text = text.replace("bind :8080", f"bind 127.0.0.1:{port}").replace(
        "bind :8405", f"bind 127.0.0.1:{health}"
    )
    servers = "\n".join(f"    server replica{number} 127.0.0.1:{at}" for number, at in enumerate(ports))
    text = text.replace("    server-template replica 16 patronus:8000", servers)
    config = directory / "haproxy.cfg"
    config.write_text(text)
    with (directory / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(["haproxy", "-db", "-f", str(config)], stdout=log, stderr=log)
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}", process, directory / "haproxy.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Both replicas are checked every second, and known to be there after the first."""
    end = time.monotonic() + START_S
    while True:
        try:
            if all(httpx.get(f"{url}/readyz").status_code == 200 for _ in range(4)):
                return
        except httpx.HTTPError:
            pass
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"haproxy does not answer:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)


def report(set_ups: Sequence[SetUp], command: str, threads: int) -> str:
    """The page that is kept."""
    alone = set_ups[0].median("images_per_s")
    rows = "\n".join(
        f"| {one.title} | {one.num_engines} | {one.median('images_per_s'):.1f} "
        f"({min(w.images_per_s for w in one.windows):.1f} – {max(w.images_per_s for w in one.windows):.1f}) "
        f"| {one.median('images_per_s') / (one.num_engines * alone):.0%} "
        f"| {one.median('busy_cores'):.1f} | {one.median('client_cores'):.1f} "
        f"| {sum(w.num_failed for w in one.windows)} |"
        for one in set_ups
    )
    cores = psutil.cpu_count() or 1
    needed = max(one.num_engines for one in set_ups) * threads
    limit = (
        f"The machine has {cores} cores. Two engines of {threads} thread{'s' * (threads > 1)} want {needed} "
        "of them; client, proxies, web servers and Ray's own processes need theirs beside. Where the "
        f"busy cores are near {cores}, it is the machine that is measured, and not how replicas scale."
    )
    return (
        "# How much one more replica brings\n\n"
        f"`{command.strip()}`\n\n{describe()}\n\n"
        f"Bundle fashion-mnist on the CPU, generate with 20 steps, {threads} thread{'s' * (threads > 1)} for "
        f"each engine, a closed loop. Medians of {len(set_ups[0].windows)} windows (least – most).\n\n"
        "| | engines | images/s | of as many services alone | busy cores | of them the client | failed |\n"
        "|---|---|---|---|---|---|---|\n"
        f"{rows}\n\n{limit}\n"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="of a network call, for each engine")
    parser.add_argument("--result", type=Path, default=RESULTS / "capacity.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
