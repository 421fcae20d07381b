"""One span for each request, from its arrival to the last byte of its answer."""

from __future__ import annotations

from http import HTTPStatus

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.semconv.attributes import (
    client_attributes,
    error_attributes,
    http_attributes,
    network_attributes,
    server_attributes,
    url_attributes,
    user_agent_attributes,
)
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.logs import request_id, trace_id
from service.middleware import OPEN_PATHS
from service.spans import recorder
from service.tracing.outcome import CANCELLED, mark
from service.tracing.request_spans import JobCount, RequestSpans, job_count

MAX_TEXT = 200
METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
"""That a span names as they are; others are anybody's invention."""
OTHER = "_OTHER"
FAULTS = frozenset({"error", "oom", "deadline"})
"""Of the `finished_reason`s: those that a stream can end with after it began with status 200."""
LEFT = frozenset({"disconnected", "cancelled"})


class ServerSpans:
    """A SERVER span for each request, below the caller's where it sends a W3C traceparent.

    Neither bodies nor query strings; nothing for probes and scrapes. Stands inside `RequestId`, whose id the
    span carries, and outside `AccessLog`, which says how the request ended and whose line carries the id of
    the trace.
    """

    def __init__(self, app: ASGIApp, *, tracer: trace.Tracer) -> None:
        self._app = app
        self._tracer = tracer
        self._parts = RequestSpans(tracer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        method = scope["method"] if scope["method"] in METHODS else OTHER
        span = self._tracer.start_span(
            _name(method),
            context=_TRACE_CONTEXT.extract(headers, Context(), _HEADERS),
            kind=SpanKind.SERVER,
            attributes=_of_request(scope, headers, method),
        )
        # As with the request's id, not reset afterwards.
        trace_id.set(trace.format_trace_id(span.get_span_context().trace_id))
        jobs = JobCount()
        if span.is_recording():
            recorder.set(self._parts)
            job_count.set(jobs)
        status: int | None = None

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                await self._app(scope, receive, watched_send)
        except BaseException as error:
            mark(span, error)
            raise
        finally:
            _tell_outcome(span, scope, method, status, jobs)
            span.end()


def _of_request(scope: Scope, headers: Headers, method: str) -> dict[str, AttributeValue]:
    """What is known when the request comes; a sampler may decide by it."""
    values: dict[str, AttributeValue] = {
        http_attributes.HTTP_REQUEST_METHOD: method,
        url_attributes.URL_PATH: scope["path"][:MAX_TEXT],
        url_attributes.URL_SCHEME: scope["scheme"],
        network_attributes.NETWORK_PROTOCOL_VERSION: scope["http_version"],
        "patronus.request.id": request_id.get() or "",
    }
    if method == OTHER:
        values[http_attributes.HTTP_REQUEST_METHOD_ORIGINAL] = scope["method"][:MAX_TEXT]
    if agent := headers.get("user-agent"):
        values[user_agent_attributes.USER_AGENT_ORIGINAL] = agent[:MAX_TEXT]
    if server := scope.get("server"):
        values[server_attributes.SERVER_ADDRESS] = server[0]
        if server[1] is not None:
            values[server_attributes.SERVER_PORT] = server[1]
    if client := scope.get("client"):
        values[client_attributes.CLIENT_ADDRESS] = client[0]
    return values


def _tell_outcome(span: trace.Span, scope: Scope, method: str, status: int | None, jobs: JobCount) -> None:
    if not span.is_recording():
        return
    state = scope.get("state", {})
    reason = state.get("finished_reason")
    if route := getattr(scope.get("route"), "path", None):
        span.set_attribute(http_attributes.HTTP_ROUTE, route)
        span.update_name(f"{_name(method)} {route}")
    if status is not None:
        span.set_attribute(http_attributes.HTTP_RESPONSE_STATUS_CODE, status)
        if status >= 400 and status in _PHRASES:
            span.set_attribute("patronus.problem.title", _PHRASES[status])
    for name, value in (
        ("patronus.client", state.get("client")),
        ("patronus.model", state.get("model_name")),
        ("patronus.finished_reason", reason),
        ("patronus.jobs", jobs.num_jobs),
    ):
        if value:
            span.set_attribute(name, value)
    if reason in LEFT:
        span.set_attribute(CANCELLED, True)
    is_fault = status is not None and status >= 500
    if is_fault or reason in FAULTS:
        span.set_attribute(error_attributes.ERROR_TYPE, str(status) if is_fault else reason)
        span.set_status(Status(StatusCode.ERROR))


def _name(method: str) -> str:
    return "HTTP" if method == OTHER else method


class _HeaderGetter(Getter[Headers]):
    def get(self, carrier: Headers, key: str) -> list[str] | None:
        return carrier.getlist(key) or None

    def keys(self, carrier: Headers) -> list[str]:
        return carrier.keys()


_TRACE_CONTEXT = TraceContextTextMapPropagator()
_HEADERS = _HeaderGetter()
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
