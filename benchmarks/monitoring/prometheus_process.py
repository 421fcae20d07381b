"""A real Prometheus with the project's own configuration and rules, asked over its HTTP API."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from benchmarks.faults.calls import Address, Call, LostError, UnreachableError, send
from benchmarks.faults.service_process import ROOT, free_port

CONFIG = ROOT / "deploy" / "prometheus" / "prometheus.yml"
START_S = 30.0
POLL_S = 0.05


@dataclass(frozen=True)
class Series:
    """Labels, and (unix time, value) in order of time; one of them for an instant query."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]

    @property
    def is_finite(self) -> bool:
        return any(math.isfinite(value) for _, value in self.points)


class QueryError(Exception):
    """Prometheus refuses an expression, and says why."""


class PrometheusProcess:
    """Scrapes as one job of a configuration says, every `interval_s`, with the rules of deploy/prometheus."""

    def __init__(self, program: str, directory: Path, job: Mapping[str, Any], *, interval_s: int = 1) -> None:
        self.address = Address("127.0.0.1", free_port())
        self._log = directory / "prometheus.log"
        config = directory / "prometheus.yml"
        config.write_text(json.dumps(_local(job, interval_s)))  # JSON is YAML too
        self._command = [program, f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}"]
        self._command.append(f"--web.listen-address={self.address.host}:{self.address.port}")
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Raises RuntimeError where it does not become ready."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        end = time.monotonic() + START_S
        while True:
            try:
                if (await send(self.address, Call("GET", "/-/ready"))).status == 200:
                    return
            except (UnreachableError, LostError):
                pass
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"prometheus did not start:\n{self._log.read_text()[-2000:]}")
            await asyncio.sleep(POLL_S)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def query(self, expression: str) -> list[Series]:
        """What an expression is now. Raises QueryError."""
        found = await self._get("/api/v1/query", {"query": expression})
        if found["resultType"] == "scalar":
            return [Series({}, [_point(found["result"])])]
        return [Series(one["metric"], [_point(one["value"])]) for one in found["result"]]

    async def query_range(
        self, expression: str, *, start: float, end: float, step_s: float = 1.0
    ) -> list[Series]:
        """What an expression was from `start` to `end` (unix times). Raises QueryError."""
        window = {"start": str(start), "end": str(end), "step": str(step_s)}
        found = await self._get("/api/v1/query_range", {"query": expression, **window})
        return [Series(one["metric"], [_point(point) for point in one["values"]]) for one in found["result"]]

    async def rules(self) -> list[Mapping[str, Any]]:
        """Every rule with its `health`, `lastError` and `query`."""
        groups = (await self._get("/api/v1/rules", {}))["groups"]
        return [rule for group in groups for rule in group["rules"]]

    async def _get(self, path: str, parameters: Mapping[str, str]) -> Any:
        reply = await send(self.address, Call("GET", f"{path}?{urlencode(parameters)}"))
        body = json.loads(reply.body)
        if body["status"] != "success":
            raise QueryError(f"{parameters.get('query')}: {body['error']}")
        return body["data"]


@contextmanager
def prometheus_process(directory: Path, job: Mapping[str, Any]) -> Iterator[PrometheusProcess]:
    """A Prometheus, not started yet, that does not outlive the block. Raises RuntimeError without one."""
    program = shutil.which("prometheus")
    if program is None:
        raise RuntimeError("prometheus is not on the PATH: Debian's package is prometheus")
    prometheus = PrometheusProcess(program, directory, job)
    try:
        yield prometheus
    finally:
        prometheus.kill()


def job_of(service: Address) -> dict[str, Any]:
    """The job of deploy/prometheus/prometheus.yml, with an address in place of a name."""
    targets = [f"{service.host}:{service.port}"]
    return {"job_name": "patronus", "static_configs": [{"targets": targets}]}


def _local(job: Mapping[str, Any], interval_s: int) -> dict[str, Any]:
    """deploy/prometheus/prometheus.yml with this job in place of its own."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    interval = f"{interval_s}s"
    config["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), interval)
    config["rule_files"] = [str(CONFIG.parent / files) for files in config["rule_files"]]
    config["scrape_configs"] = [job]
    return config


def _point(pair: Sequence[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])
