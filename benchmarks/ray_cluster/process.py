"""A Ray cluster of one machine that serves the application, and can be looked at and ended."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from benchmarks.faults.service_process import free_port

ROOT = Path(__file__).parents[2]
SERVE_CONFIG = ROOT / "deploy" / "ray" / "serve.yaml"
ATTEMPTS = 3
WITHIN_S = 240.0
STOP_S = 40.0
POLL_S = 0.1
FAST = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
}
"""Of Ray: nothing is sent out, and scaling is seen within seconds."""


@dataclass(frozen=True)
class Replica:
    id: str
    pid: int
    state: str


class ClusterError(Exception):
    """The cluster ended, or does not get where it should; the message says what it said."""


class RayProcess:
    """deploy/ray/serve.yaml on a cluster of its own, with what `deploy` is told instead."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = directory / "cluster.log"
        # Below /tmp, as paths of Ray's sockets must be short.
        self._temporary = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        kept = {name: text for name, text in os.environ.items() if not name.startswith("PATRONUS_")}
        own = {
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(directory),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(24),  # or Ray writes one into the home directory
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deploy.ray.http_contract:middlewares",
        }
        self._environment = {**kept, **FAST, **own, **environment}
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Raises ClusterError. Ray gives itself 30 s, which a busy machine may miss: it is tried again."""
        for _ in range(ATTEMPTS):
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.ray_cluster", self._temporary],
                    cwd=ROOT,
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
            assert self._process.stdout is not None
            if self._process.stdout.readline():
                return
            self._stop()
        raise ClusterError(f"no cluster started in {ATTEMPTS} attempts:\n{self._log.read_text()[-3000:]}")

    def deploy(self, *, environment: Mapping[str, str] | None = None, **options: Any) -> None:
        """As `serve deploy`: the application with these options, and for a new one these variables."""
        config = yaml.safe_load(SERVE_CONFIG.read_text())
        config["http_options"] |= {"host": "127.0.0.1", "port": self.port}
        [application] = config["applications"]
        application["runtime_env"] = {"env_vars": dict(environment or {})}
        [deployment] = application["deployments"]
        deployment["ray_actor_options"]["num_cpus"] = 1
        if "num_replicas" in options:
            del deployment["autoscaling_config"]
        deployment.update(options)
        self._tell({"deploy": config})

    def replicas(self, state: str = "RUNNING") -> list[Replica]:
        found = self.details()["replicas"]
        every = [Replica(one["id"], one["pid"], one["state"].rpartition(".")[2]) for one in found]
        return [replica for replica in every if replica.state == state]

    def details(self) -> dict[str, Any]:
        """As `__main__` tells them. Raises ClusterError where the application could not be deployed."""
        details: dict[str, Any] = self._tell({"details": None})
        if details["status"] == "DEPLOY_FAILED":
            raise ClusterError(details["message"])
        return details

    def until(self, is_so: Callable[[], bool], within_s: float = WITHIN_S) -> None:
        """Wait for it. Raises ClusterError."""
        end = time.monotonic() + within_s
        while not is_so():
            if time.monotonic() > end:
                raise ClusterError(f"{self.details()}\n{self._log.read_text()[-2000:]}")
            time.sleep(POLL_S)  # a poll of other processes, bounded above

    def until_running(self, num_replicas: int) -> None:
        """Wait until that many replicas run, none comes or goes, and requests are answered."""

        def is_so() -> bool:
            found = self.details()
            running = self.replicas()
            return len(running) == len(found["replicas"]) == num_replicas and found["status"] == "RUNNING"

        self.until(is_so)
        self.until(lambda: len(self.scrape_addresses()) == num_replicas)

    def scrape_addresses(self) -> dict[str, str]:
        """Of replicas that run, by replica."""
        response = httpx.get(f"{self.url}/metrics/targets", timeout=30.0)
        if response.status_code != 200:
            return {}
        found = {one["labels"]["__meta_patronus_replica"]: one["targets"][0] for one in response.json()}
        running = {replica.id for replica in self.replicas()}
        return {replica: address for replica, address in found.items() if replica in running}

    def metric(self, line_start: str) -> dict[str, float]:
        """By replica, the sum of the samples whose lines begin so."""
        found = {}
        for replica, address in self.scrape_addresses().items():
            lines = httpx.get(f"http://{address}/metrics", timeout=30.0).text.splitlines()
            values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(line_start)]
            found[replica] = sum(values)
        return found

    def end(self) -> None:
        """Shut the cluster down in order; whatever is left of it then is killed."""
        self._stop()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        started = psutil.Process(process.pid).children(recursive=True)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _, left = psutil.wait_procs(started, timeout=5.0)
        for one in left:
            with contextlib.suppress(psutil.Error):
                one.send_signal(signal.SIGKILL)
        process.stdout.close()

    def _tell(self, order: Mapping[str, Any]) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise ClusterError(f"the cluster ended:\n{self._log.read_text()[-3000:]}")
        return json.loads(answer)


@contextmanager
def ray_process(directory: Path, environment: Mapping[str, str]) -> Iterator[RayProcess]:
    """A cluster that serves nothing yet, and does not outlive the block."""
    cluster = RayProcess(directory, environment)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()
