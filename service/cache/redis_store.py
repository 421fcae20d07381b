"""A store in Redis that several services share; slow or broken Redis costs milliseconds, not requests."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from service.cache.cache import CacheError

MAGIC = b"PTR1"
DIGEST_BYTES = 16


class RedisStore:
    """Values with a version and a checksum of key and value before them, kept for `ttl_s` seconds.

    After a fault Redis is left alone for `cool_down_s`; the calls in that time fail at once.
    """

    def __init__(
        self,
        url: str,
        *,
        ttl_s: int,
        timeout_s: float = 0.1,
        cool_down_s: float = 1.0,
        max_value_bytes: int = 16 * 2**20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        pool: Any = BlockingConnectionPool.from_url(
            url,
            max_connections=32,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis: Any = Redis.from_pool(pool)
        self._ttl_s = ttl_s
        self._cool_down_s = cool_down_s
        self._max_value_bytes = max_value_bytes
        self._clock = clock
        self._closed_until = 0.0

    async def get(self, key: str) -> bytes | None:
        sealed = await self._call(self._redis.get, key)
        return None if sealed is None else unseal(key, sealed)

    async def set(self, key: str, value: bytes) -> None:
        if len(value) <= self._max_value_bytes:
            await self._call(self._redis.set, key, seal(key, value), ex=self._ttl_s)

    async def close(self) -> None:
        await self._redis.aclose()

    async def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if self._clock() < self._closed_until:
            raise CacheError("Redis failed a moment ago and is left alone")
        try:
            return await function(*arguments, **options)
        except ResponseError as error:  # Redis answered; this key holds no string, say
            raise CacheError(f"Redis: {error}") from error
        except (RedisError, OSError, TimeoutError, ValueError) as error:
            self._closed_until = self._clock() + self._cool_down_s
            raise CacheError(f"Redis: {type(error).__name__}: {error}") from error


def seal(key: str, value: bytes) -> bytes:
    """The value with version and checksum before it."""
    return MAGIC + _digest(key, value) + value


def unseal(key: str, sealed: bytes) -> bytes:
    """The inverse of `seal`. Raises CacheError for bytes that `seal` did not make for this key."""
    start = len(MAGIC) + DIGEST_BYTES
    value = sealed[start:]
    if sealed[: len(MAGIC)] != MAGIC or sealed[len(MAGIC) : start] != _digest(key, value):
        raise CacheError("a value is damaged, of another key, or of another version")
    return value


def _digest(key: str, value: bytes) -> bytes:
    digest = hashlib.blake2b(key.encode() + b"\0", digest_size=DIGEST_BYTES)
    digest.update(value)
    return digest.digest()
