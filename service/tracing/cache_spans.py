"""Look-ups in the cache, and what they found."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.trace import Tracer
from opentelemetry.util.types import AttributeValue

from service.cache.cache import Cache, CacheObserver, Store


class TracedCache(Cache):
    """A cache each of whose calls is a span, with its operation, its keys' number, and how many were hits."""

    def __init__(self, store: Store, *, namespace: str, observer: CacheObserver, tracer: Tracer) -> None:
        super().__init__(store, namespace=namespace, observer=observer)
        self._tracer = tracer

    async def get_many(self, operation: str, keys: Sequence[str]) -> list[bytes | None]:
        with self._tracer.start_as_current_span("cache get", attributes=_of(operation, keys)) as span:
            values = await super().get_many(operation, keys)
            num_hits = sum(value is not None for value in values)
            span.set_attribute("patronus.cache.hits", num_hits)
            span.set_attribute("patronus.cache.misses", len(values) - num_hits)
        return values

    async def set_many(self, operation: str, items: Sequence[tuple[str, bytes]]) -> None:
        with self._tracer.start_as_current_span("cache set", attributes=_of(operation, items)):
            await super().set_many(operation, items)


def _of(operation: str, keys: Sequence[object]) -> dict[str, AttributeValue]:
    return {"patronus.cache.operation": operation, "patronus.cache.keys": len(keys)}
