"""The protocol of a cache, and the counted, never failing way to use one."""

from __future__ import annotations

import logging
from typing import Protocol

log = logging.getLogger(__name__)


class CacheError(Exception):
    """A store is unreachable, slow, or gave bytes that were not stored by us."""


class CacheUnavailableError(CacheError):
    """A store is known to be unreachable and was not asked."""


class Store(Protocol):
    """Where bytes are kept. May raise CacheError; may forget."""

    async def get(self, key: str) -> bytes | None: ...

    async def set(self, key: str, value: bytes) -> None: ...

    async def close(self) -> None: ...


class CacheObserver(Protocol):
    """Counts what a cache does, by operation."""

    def cache_hit(self, operation: str) -> None: ...

    def cache_miss(self, operation: str) -> None: ...

    def cache_error(self, operation: str) -> None: ...


class Cache:
    """A store under one namespace (the bundle digest), whose faults are counted misses.

    A store that was not asked, being known to be unreachable, makes misses and no errors.
    """

    def __init__(self, store: Store, *, namespace: str, observer: CacheObserver) -> None:
        self._store = store
        self._namespace = namespace
        self._observer = observer

    async def get(self, operation: str, key: str) -> bytes | None:
        """What `set` stored under the same names, or None."""
        try:
            value = await self._store.get(self._key(operation, key))
        except CacheUnavailableError:
            value = None
        except CacheError as error:
            log.warning("cache read failed: %s", error)
            self._observer.cache_error(operation)
            value = None
        if value is None:
            self._observer.cache_miss(operation)
        else:
            self._observer.cache_hit(operation)
        return value

    async def set(self, operation: str, key: str, value: bytes) -> None:
        try:
            await self._store.set(self._key(operation, key), value)
        except CacheUnavailableError:
            pass
        except CacheError as error:
            log.warning("cache write failed: %s", error)
            self._observer.cache_error(operation)

    def lying(self, operation: str) -> None:
        """Count a value that was stored intact and yet cannot be what was asked for."""
        self._observer.cache_error(operation)

    def _key(self, operation: str, key: str) -> str:
        return f"patronus:{self._namespace}:{operation}:{key}"
