"""The protocol of a cache, and the counted, never failing way to use one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol, TypeAlias

log = logging.getLogger(__name__)


class CacheError(Exception):
    """A store is unreachable, slow, or gave bytes that were not stored by us."""


class CacheUnavailableError(CacheError):
    """A store was not asked: it is known to be unreachable, or we had no connection free."""


Found: TypeAlias = bytes | CacheError | None
"""What a store has under one key: a value, nothing, or a fault that says nothing of the other keys."""


class Store(Protocol):
    """Where bytes are kept. It may forget, and may fail: of each key by itself."""

    async def get_many(self, keys: Sequence[str]) -> list[Found]:
        """What lies under each key, in order. Faults are returned, never raised."""
        ...

    async def set_many(self, items: Sequence[tuple[str, bytes]]) -> list[CacheError | None]:
        """Keep the values of (key, value) pairs; the fault of each, in order, never raised."""
        ...

    async def close(self) -> None: ...

    async def get(self, key: str) -> bytes | None:
        """`get_many` of one key. Raises its fault."""
        [found] = await self.get_many([key])
        if isinstance(found, CacheError):
            raise found
        return found

    async def set(self, key: str, value: bytes) -> None:
        """`set_many` of one pair. Raises its fault."""
        [fault] = await self.set_many([(key, value)])
        if fault is not None:
            raise fault


class CacheObserver(Protocol):
    """Counts what a cache does, by operation."""

    def cache_hit(self, operation: str) -> None: ...

    def cache_miss(self, operation: str) -> None: ...

    def cache_error(self, operation: str) -> None: ...


class Cache:
    """A store under one namespace (the bundle digest), whose faults are counted misses.

    Counts go by key. A store that was not asked, being known to be unreachable, makes misses and no errors.
    """

    def __init__(self, store: Store, *, namespace: str, observer: CacheObserver) -> None:
        self._store = store
        self._namespace = namespace
        self._observer = observer

    async def get(self, operation: str, key: str) -> bytes | None:
        """What `set` stored under the same names, or None."""
        [value] = await self.get_many(operation, [key])
        return value

    async def set(self, operation: str, key: str, value: bytes) -> None:
        await self.set_many(operation, [(key, value)])

    async def get_many(self, operation: str, keys: Sequence[str]) -> list[bytes | None]:
        """What was stored under each key, in order, or None."""
        found = await self._store.get_many([self._key(operation, key) for key in keys])
        self._count_faults(operation, "read", found)
        values = [None if isinstance(value, CacheError) else value for value in found]
        for value in values:
            if value is None:
                self._observer.cache_miss(operation)
            else:
                self._observer.cache_hit(operation)
        return values

    async def set_many(self, operation: str, items: Sequence[tuple[str, bytes]]) -> None:
        """Store (key, value) pairs."""
        faults = await self._store.set_many([(self._key(operation, key), value) for key, value in items])
        self._count_faults(operation, "written", faults)

    def lying(self, operation: str) -> None:
        """Count a value that was stored intact and yet cannot be what was asked for."""
        self._observer.cache_error(operation)

    def _count_faults(self, operation: str, verb: str, outcomes: Sequence[Found]) -> None:
        faults = [fault for fault in outcomes if isinstance(fault, CacheError)]
        faults = [fault for fault in faults if not isinstance(fault, CacheUnavailableError)]
        for _ in faults:
            self._observer.cache_error(operation)
        if faults:  # one line for a call, however many values it was for
            log.warning("%d of %d cache values not %s: %s", len(faults), len(outcomes), verb, faults[0])

    def _key(self, operation: str, key: str) -> str:
        return f"patronus:{self._namespace}:{operation}:{key}"
