"""The parts of a request that the rest of the service names (`service.spans`), as spans of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from opentelemetry import trace

from service.spans import Value
from service.tracing.outcome import mark

PREFIX = "patronus."


@dataclass(eq=False)
class JobCount:
    """How many jobs a request has given to the engine."""

    num_jobs: int = 0


job_count: ContextVar[JobCount | None] = ContextVar("job_count", default=None)
"""Of the request that is being handled; set by `service.tracing.server_spans`."""


class RequestSpans:
    """Records below whatever span is the current one (`service.spans.SpanRecorder`)."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def span(self, name: str, values: Mapping[str, Value]) -> Iterator[None]:
        with self._tracer.start_as_current_span(
            name, attributes=attributes(values), record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except BaseException as error:
                mark(span, error)
                raise

    def event(self, name: str, values: Mapping[str, Value]) -> None:
        span = trace.get_current_span()
        if span.is_recording():  # not after its end, where a thread goes on for a client that left
            span.add_event(name, attributes(values))


def attributes(values: Mapping[str, Value]) -> dict[str, Value]:
    return {PREFIX + name: value for name, value in values.items()}
