"""Tracing as a process of its own sees it: off, asked for and absent, and sending over OTLP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.service.test_main import free_port, start, wait_until_ready

ROOT = Path(__file__).parents[2]

SERVE_ONE_REQUEST = """
import asyncio, sys, httpx
from dataclasses import replace
from service.app import create_app
from service.engine.fake_runner import FakeRunner
from service.settings import SHIPPED_BUNDLE, Settings

async def main():
    settings = replace(Settings(), bundle=(SHIPPED_BUNDLE,), tune_batch="off")
    app = create_app(settings, lambda bundle, _: FakeRunner(bundle.config, has_prior=True))
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            assert (await client.post("/generate", json={"steps": 2})).status_code == 200

asyncio.run(main())
makers = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "service.tracing")
print(sorted(name for name in sys.modules if name.startswith(makers)))  # FastAPI and redis load some others
"""

WITHOUT_THE_EXTRA = """
import sys
sys.modules["opentelemetry.sdk"] = None  # as if it were not installed
from service.__main__ import main
sys.exit(main())
"""


def python(program: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_off_loads_nothing_that_makes_or_sends_spans() -> None:
    done = python(SERVE_ONE_REQUEST, {"PATRONUS_TRACING": "off"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_tracing_without_its_extra_stops_start_up_and_names_the_extra() -> None:
    done = python(WITHOUT_THE_EXTRA, {"PATRONUS_TRACING": "otlp"})
    assert done.returncode == 2
    assert "patronus-server[tracing]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("PATRONUS_TRACING", "jaeger", "PATRONUS_TRACING must be one of off, otlp, console"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "many", "OTEL_SPAN_EVENT_COUNT_LIMIT"),
    ],
)
def test_bad_value_stops_start_up_and_names_itself(variable: str, value: str, named: str) -> None:
    process = start({"PATRONUS_TRACING": "otlp", variable: value})
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert named in output
    assert "Traceback" not in output


class Collector(ThreadingHTTPServer):
    """Takes spans as a collector of OpenTelemetry does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.received: list[ExportTraceServiceRequest] = []


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces":
            self.server.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200 if self.path == "/v1/traces" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def test_spans_reach_a_collector_over_otlp_before_the_service_ends(collector: Collector) -> None:
    port = free_port()
    trace = "0af7651916cd43dd8448eb211c80319c"
    process = start(
        {
            "PATRONUS_PORT": str(port),
            "PATRONUS_LOG_FORMAT": "json",
            "PATRONUS_TRACING": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
            "OTEL_SERVICE_NAME": "my-patronus",
            "OTEL_BSP_SCHEDULE_DELAY": "600000",  # only the end sends
        }
    )
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}")
        headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        answer = httpx.post(
            f"http://127.0.0.1:{port}/generate", json={"steps": 3}, headers=headers, timeout=60
        )
        assert answer.status_code == 200
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    sent = [resource for request in collector.received for resource in request.resource_spans]
    spans = [span for resource in sent for scope in resource.scope_spans for span in scope.spans]
    assert {span.trace_id.hex() for span in spans} == {trace}
    assert {"POST /generate", "queue", "prior", "denoise", "encode", "pixels out"} <= {
        span.name for span in spans
    }
    names = {item.value.string_value for item in sent[0].resource.attributes if item.key == "service.name"}
    assert names == {"my-patronus"}
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    [access] = [line for line in lines if line["logger"] == "service.access" and line["path"] == "/generate"]
    assert access["trace_id"] == trace
