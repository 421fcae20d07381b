"""The spans of one service process, and their way out of it."""

from __future__ import annotations

import asyncio
import logging
import threading
from types import TracebackType
from typing import Literal

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

from service.cache.cache import Cache, CacheObserver, Store
from service.engine.observer import EngineObserver
from service.tracing.cache_spans import TracedCache
from service.tracing.engine_spans import EngineSpans

log = logging.getLogger(__name__)

LAST_SPANS_S = 2.0
"""How long a service that ends waits for its last spans to be taken."""
LOOK_EVERY_S = 0.01


class Tracing:
    """Makes spans, and hands them to `exporter` from a thread of their own.

    Whoever makes a span never waits: where the exporter is slow or fails, at most OTEL_BSP_MAX_QUEUE_SIZE
    spans are kept, and the oldest are lost. An async context manager: spans go out while it is entered; on
    exit those that are left have `last_spans_s`. Sampler, limits, queue and the service's name follow the
    standard OTEL_* variables. Raises ValueError where one of those cannot be.
    """

    def __init__(self, exporter: SpanExporter, *, version: str, last_spans_s: float = LAST_SPANS_S) -> None:
        ours = Resource.create({SERVICE_NAME: "patronus-server", SERVICE_VERSION: version})
        # Merged last: what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say counts.
        self._provider = TracerProvider(
            resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        self._exporter = exporter
        self._last_spans_s = last_spans_s
        self.tracer = self._provider.get_tracer("patronus", version)

    @classmethod
    def exporting_to(cls, exporter: Literal["otlp", "console"], version: str) -> Tracing:
        """Spans over OTLP/HTTP, as the OTEL_EXPORTER_OTLP_* variables say, or as JSON on stdout."""
        if exporter == "console":
            return cls(ConsoleSpanExporter(), version=version)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return cls(OTLPSpanExporter(), version=version)

    def engine_spans(self, observer: EngineObserver, model_name: str) -> EngineSpans:
        """What records the jobs of one model's engine, and observes it on behalf of `observer`."""
        return EngineSpans(self.tracer, observer, model_name)

    def cache(self, store: Store, *, namespace: str, observer: CacheObserver) -> Cache:
        """A cache whose look-ups are spans."""
        return TracedCache(store, namespace=namespace, observer=observer, tracer=self.tracer)

    async def __aenter__(self) -> Tracing:
        # Each failed attempt is a warning of the exporter; that a batch was lost is an error.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A daemon, as the SDK's own patience is 30 s and the end of the process would wait for any other.
        ending = threading.Thread(target=self._provider.shutdown, name="patronus-tracing", daemon=True)
        ending.start()
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._last_spans_s
        while ending.is_alive() and loop.time() < give_up_at:
            await asyncio.sleep(LOOK_EVERY_S)
        if ending.is_alive():
            log.warning("the last spans were not taken within %g s and are lost", self._last_spans_s)
