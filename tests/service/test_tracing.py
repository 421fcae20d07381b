"""Spans of requests, through the whole HTTP stack and the SDK of OpenTelemetry."""

from __future__ import annotations

import io
import json
import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from model.bundle import Bundle
from service.app import RunnerFactory
from service.engine.fake_runner import FakeRunner
from service.engine.runner import StepInputs, StepOutputs
from service.logs import JsonFormatter
from service.settings import Settings
from service.tracing.engine_spans import MAX_JOBS
from service.tracing.tracing import Tracing
from tests.service.conftest import b64, eventually, fake_runner, serving

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}

Tree = tuple[str, list[Any]]
"""A span's name and its children in the order of their starts."""


class Spans:
    """Everything that a service recorded; complete when it has ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    @property
    def all(self) -> list[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    @property
    def roots(self) -> list[ReadableSpan]:
        return [span for span in self.all if span.kind is SpanKind.SERVER]

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        [span] = self.named(name)
        return span

    def below(self, parent: ReadableSpan) -> list[ReadableSpan]:
        assert parent.context is not None
        own = parent.context.span_id
        return [span for span in self.all if span.parent is not None and span.parent.span_id == own]

    def tree(self, root: ReadableSpan) -> Tree:
        return root.name, [self.tree(child) for child in self.below(root)]


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@contextmanager
def traced(settings: Settings, make_runner: RunnerFactory = fake_runner) -> Iterator[tuple[str, Spans]]:
    spans = Spans()
    with serving(settings, make_runner, lambda _: Tracing(spans.exporter, version="1")) as url:
        yield url, spans


ENCODED: list[Tree] = [("cache get", []), ("queue", []), ("encode", []), ("cache set", [])]


def denoised(*steps: int) -> list[Tree]:
    return [("queue", []), ("denoise", [("denoise step", []) for _ in steps])]


def test_generate_is_one_tree_with_its_waits_runs_and_pixels(bundle: Bundle, settings: Settings) -> None:
    body = {"steps": 20, "num_images": 2, "activations": [0.5] * bundle.config.num_prototypes}
    with traced(settings) as (url, spans):
        headers = {**SAMPLED, "X-Request-ID": "mine"}
        assert httpx.post(f"{url}/generate", json=body, headers=headers).status_code == 200
    root = spans.one("POST /generate")
    assert spans.tree(root) == ("POST /generate", [*denoised(1, 10, 20), *ENCODED, ("pixels out", [])])
    assert root.context is not None
    assert root.parent is not None
    assert format(root.context.trace_id, "032x") == TRACE
    assert format(root.parent.span_id, "016x") == PARENT
    attributes = said(root)
    assert attributes == {
        "http.request.method": "POST",
        "url.path": "/generate",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "user_agent.original": f"python-httpx/{httpx.__version__}",
        "http.route": "/generate",
        "http.response.status_code": 200,
        "patronus.request.id": "mine",
        "client.address": "127.0.0.1",
        "server.address": "127.0.0.1",
        "server.port": urlsplit(url).port,
        "patronus.client": "address:127.0.0.1",
        "patronus.model": bundle.name,
        "patronus.finished_reason": "ok",
        "patronus.jobs": 2,
    }
    assert root.status.status_code is StatusCode.UNSET
    denoise = said(spans.one("denoise"))
    assert (denoise["patronus.samples"], denoise["patronus.steps"]) == (2, 20)
    assert denoise["patronus.batch.steps"] == 20
    assert denoise["patronus.batch.mean_rows"] == 2.0
    assert [said(step)["patronus.step"] for step in spans.named("denoise step")] == [1, 10, 20]
    assert {said(step)["patronus.batch.rows"] for step in spans.named("denoise step")} == {2}


def test_prior_has_a_wait_and_a_run_of_its_own(settings: Settings) -> None:
    with traced(settings) as (url, spans):
        assert httpx.post(f"{url}/generate", json={"steps": 3}).status_code == 200
    _, children = spans.tree(spans.one("POST /generate"))
    assert children == [("queue", []), ("prior", []), *denoised(1, 3), *ENCODED, ("pixels out", [])]
    assert not any(name.startswith("patronus.batch") for name in said(spans.one("prior")))


def test_edit_tells_its_stages_apart(settings: Settings, reference_pngs: list[bytes]) -> None:
    body = {
        "image": b64(reference_pngs[0]),
        "edits": [{"prototype": 3, "op": "max"}],
        "steps": 4,
        "rounds": 1,
    }
    with traced(settings) as (url, spans):
        assert httpx.post(f"{url}/edit", json=body).status_code == 200
    _, children = spans.tree(spans.one("POST /edit"))
    inverted = [("cache get", []), *denoised(1, 4), ("cache set", [])]
    assert children == [
        *ENCODED,
        ("invert", inverted),
        ("generate", [*denoised(1, 4), *ENCODED]),
        ("cache set", []),
        ("pixels out", []),
    ]
    assert said(spans.one("invert"))["patronus.steps"] == 4


def test_encode_that_is_known_reaches_no_engine(settings: Settings, reference_pngs: list[bytes]) -> None:
    with traced(settings) as (url, spans):
        for _ in range(2):
            assert httpx.post(f"{url}/encode", files={"image": reference_pngs[0]}).status_code == 200
    missed, hit = spans.named("POST /encode")
    assert spans.tree(missed) == ("POST /encode", [*ENCODED, ("cache set", [])])
    assert spans.tree(hit) == ("POST /encode", [("cache get", []), ("cache set", [])])
    before, after = (said(spans.below(root)[0]) for root in (missed, hit))
    looked_up = {"patronus.cache.operation": "encode", "patronus.cache.keys": 1}
    assert before == {**looked_up, "patronus.cache.hits": 0, "patronus.cache.misses": 1}
    assert after == {**looked_up, "patronus.cache.hits": 1, "patronus.cache.misses": 0}


def test_stream_is_one_span_to_its_end_with_its_previews(settings: Settings) -> None:
    body = {"steps": 12, "preview_every": 12}
    with traced(settings) as (url, spans):
        answer = httpx.post(f"{url}/generate", json=body, headers={"Accept": "text/event-stream"})
        assert "event: result" in answer.text
    root = spans.one("POST /generate")
    _, children = spans.tree(root)
    assert children == [("queue", []), ("prior", []), *denoised(1, 10, 12), *ENCODED, ("pixels out", [])]
    [preview] = root.events
    assert preview.name == "preview"
    assert dict(preview.attributes or {}) == {
        "patronus.stage": "generate",
        "patronus.image": 0,
        "patronus.step": 12,
    }
    assert root.end_time == max(span.end_time or 0 for span in spans.all)


class GatedRunner(FakeRunner):
    """Waits at every step until `gate` is open, and then may fail; `entered` tells that a step has begun."""

    def __init__(self, bundle: Bundle, *, fails_at: int | None = None) -> None:
        super().__init__(bundle.config, max_batch=8, has_prior=bundle.prior is not None)
        self.gate = threading.Event()
        self.entered = threading.Event()
        self._fails_at = fails_at

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        self.entered.set()
        assert self.gate.wait(30)
        if self.calls == self._fails_at:
            raise RuntimeError("secret detail of the device")
        return super().denoise_step(inputs)


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_client_that_leaves_ends_its_spans_as_cancelled(
    bundle: Bundle, settings: Settings, accept: str
) -> None:
    runner = GatedRunner(bundle)
    body = b'{"steps": 200}'
    with traced(settings, lambda *_: runner) as (url, spans):
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port)) as connection:
            lines = ("Host: x", f"Accept: {accept}", "Content-Type: application/json")
            head = "\r\n".join(["POST /generate HTTP/1.1", *lines, f"Content-Length: {len(body)}", "", ""])
            connection.sendall(head.encode() + body)
            assert runner.entered.wait(10)
        eventually(url, 'patronus_requests_total{endpoint="generate",finished_reason="disconnected"', 1.0)
        runner.gate.set()
    root, denoise = spans.one("POST /generate"), spans.one("denoise")
    assert said(root)["patronus.finished_reason"] == "disconnected"
    assert said(root)["patronus.cancelled"] is True
    assert said(denoise)["patronus.cancelled"] is True
    assert {span.status.status_code for span in (root, denoise)} == {StatusCode.UNSET}


def test_rejected_request_says_why(settings: Settings) -> None:
    with traced(settings) as (url, spans):
        assert httpx.post(f"{url}/generate", json={"steps": 0}).status_code == 422
        assert httpx.get(f"{url}/prototypes/9999").status_code == 404
        assert httpx.get(f"{url}/no/such/place?secret=1").status_code == 404
        assert httpx.request("PROPFIND", f"{url}/generate").status_code == 405
    invalid, unknown, nowhere, other = spans.roots
    assert [span.name for span in spans.roots] == [
        "POST /generate",
        "GET /prototypes/{prototype}",
        "GET",
        "HTTP /generate",
    ]
    titles = [said(span)["patronus.problem.title"] for span in spans.roots]
    assert titles == ["Unprocessable Entity", "Not Found", "Not Found", "Method Not Allowed"]
    assert {said(span)["patronus.finished_reason"] for span in spans.roots} == {"rejected"}
    assert {span.status.status_code for span in spans.roots} == {StatusCode.UNSET}  # a client's fault is none
    assert spans.tree(invalid) == ("POST /generate", [])
    assert said(unknown)["http.route"].startswith("/prototypes/")
    assert said(nowhere)["url.path"] == "/no/such/place"
    assert said(other)["http.request.method_original"] == "PROPFIND"


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_failed_step_is_an_error_of_the_job_and_of_the_request(
    bundle: Bundle, settings: Settings, accept: str
) -> None:
    runner = GatedRunner(bundle, fails_at=1)
    runner.gate.set()
    with traced(settings, lambda *_: runner) as (url, spans):
        httpx.post(f"{url}/generate", json={"steps": 3}, headers={"Accept": accept})
    root, denoise = spans.one("POST /generate"), spans.one("denoise")
    assert {span.status.status_code for span in (root, denoise)} == {StatusCode.ERROR}
    assert said(denoise)["error.type"] == "StepFailedError"
    if said(root)["http.response.status_code"] == 500:
        assert said(root)["patronus.problem.title"] == "Internal Server Error"
        assert said(root)["error.type"] == "500"
    else:
        [problem] = [event for event in root.events if event.name == "problem"]
        assert dict(problem.attributes or {}) == {
            "patronus.status": 500,
            "patronus.title": "Internal Server Error",
        }
        assert said(root)["error.type"] == "error"


def test_job_that_never_runs_has_a_wait_that_says_why(settings: Settings) -> None:
    limits = {"max_images": 64, "max_queue": 4}
    with traced(Settings(**{**vars(settings), **limits})) as (url, spans):
        assert httpx.post(f"{url}/generate", json={"steps": 2, "num_images": 8}).status_code == 422
    [queue] = spans.named("queue")
    assert said(queue)["error.type"] == "JobTooLargeError"
    assert queue.status.description == "8 samples can never fit a queue of 4"
    assert spans.named("denoise") == spans.named("prior") == []


def test_request_of_very_many_jobs_has_spans_of_the_first_and_says_how_many(settings: Settings) -> None:
    with traced(settings) as (url, spans):
        body = {"num_samples": 8, "steps": 1}
        assert httpx.post(f"{url}/diagnose", json=body, timeout=60).status_code == 200
    num_jobs = said(spans.one("POST /diagnose"))["patronus.jobs"]
    assert num_jobs > MAX_JOBS
    assert len(spans.named("queue")) == MAX_JOBS


def test_probes_and_scrapes_have_no_spans(settings: Settings) -> None:
    with traced(settings) as (url, spans):
        for path in ("/healthz", "/readyz", "/metrics"):
            assert httpx.get(f"{url}{path}").status_code == 200
    assert spans.all == []


@pytest.mark.parametrize("traceparent", ["", "00-0-0-01", "zz", f"00-{'0' * 32}-{PARENT}-01", "é" * 600])
def test_malformed_traceparent_begins_a_trace_of_our_own(settings: Settings, traceparent: str) -> None:
    with traced(settings) as (url, spans):
        headers = {b"traceparent": traceparent.encode()}
        assert httpx.get(f"{url}/version", headers=headers).status_code == 200
    assert spans.one("GET /version").parent is None


@pytest.fixture
def log_lines() -> Iterator[io.StringIO]:
    """What the service logs meanwhile, as JSON."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("service")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.parametrize("headers", [SAMPLED, UNSAMPLED])
def test_log_lines_carry_the_trace_sampled_or_not(
    settings: Settings, log_lines: io.StringIO, headers: dict[str, str]
) -> None:
    with traced(settings) as (url, spans):
        assert httpx.post(f"{url}/generate", json={"steps": 2}, headers=headers).status_code == 200
    lines = [json.loads(line) for line in log_lines.getvalue().splitlines()]
    [access] = [line for line in lines if line["logger"] == "service.access"]
    assert access["trace_id"] == TRACE
    assert bool(spans.all) == (headers is SAMPLED)


class HangingExporter(SpanExporter):
    """Takes its first batch and never comes back, until `gate` is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.gate.wait(60)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None: ...


class RaisingExporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise RuntimeError("no way out")

    def shutdown(self) -> None: ...


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize("kind", ["dead", "hanging", "raising"])
def test_exporter_that_fails_neither_fails_nor_holds_up_requests_or_the_end(
    settings: Settings,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    log_lines: io.StringIO,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    hanging = HangingExporter()
    request.addfinalizer(hanging.gate.set)
    exporter = {
        "dead": OTLPSpanExporter(endpoint=f"http://127.0.0.1:{closed_port()}/v1/traces"),
        "hanging": hanging,
        "raising": RaisingExporter(),
    }[kind]
    make_tracing = lambda _: Tracing(exporter, version="1", last_spans_s=0.1)  # noqa: E731
    with serving(settings, fake_runner, make_tracing) as url, httpx.Client(base_url=url) as client:
        for seed in range(20):  # more spans than the queue holds
            answer = client.post("/generate", json={"steps": 2, "seed": seed}, timeout=30)
            assert answer.status_code == 200
    if kind == "hanging":
        assert "the last spans were not taken within 0.1 s and are lost" in log_lines.getvalue()
