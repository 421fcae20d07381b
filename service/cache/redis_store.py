"""A store in Redis that several services share; slow or broken Redis costs milliseconds, not requests."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from service.cache.cache import CacheError
from service.cache.circuit_breaker import Circuit, CircuitBreaker

log = logging.getLogger(__name__)

MAGIC = b"PTR1"
DIGEST_BYTES = 16
MAX_CONNECTIONS = 32
UNREACHABLE = (RedisError, OSError, TimeoutError, ValueError)
"""What redis-py raises where Redis is gone, silent, or something else than Redis."""


class RedisStore:
    """Values with a version and a checksum of key and value before them, kept for `ttl_s` seconds.

    No call takes longer than `timeout_s`, waiting for a connection and connecting included. After
    `max_failures` in a row Redis is left alone for `cool_down_s` (`CircuitBreaker`). Values over
    `max_value_bytes` are neither sent nor fetched. The URL may name a user and password, TLS (`rediss://`)
    and redis-py's options (`?ssl_ca_certs=…`). Raises ValueError for a URL that cannot be one.
    """

    def __init__(
        self,
        url: str,
        *,
        ttl_s: int,
        timeout_s: float = 0.05,
        cool_down_s: float = 1.0,
        max_failures: int = 3,
        max_value_bytes: int = 16 * 2**20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        pool: Any = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis: Any = Redis.from_pool(pool)
        self._ttl_s = ttl_s
        self._timeout_s = timeout_s
        self._max_value_bytes = max_value_bytes
        self._breaker = CircuitBreaker(
            max_failures=max_failures, pause_s=cool_down_s, clock=clock, watch=_log_circuit
        )

    @property
    def is_left_alone(self) -> bool:
        """Whether faults have opened the circuit, and nothing has closed it since."""
        return self._breaker.circuit is not Circuit.CLOSED

    async def get(self, key: str) -> bytes | None:
        # A range, so that no more is fetched than a value of ours may have, whatever lies there.
        longest = len(MAGIC) + DIGEST_BYTES + self._max_value_bytes
        sealed: bytes = await self._call(self._redis.getrange, key, 0, longest)
        if len(sealed) > longest:
            raise CacheError(f"a value has more than {self._max_value_bytes} bytes")
        return unseal(key, sealed) if sealed else None  # a range of nothing is empty, and ours never is

    async def set(self, key: str, value: bytes) -> None:
        if len(value) <= self._max_value_bytes:
            await self._call(self._redis.set, key, seal(key, value), ex=self._ttl_s)

    async def close(self) -> None:
        try:
            async with asyncio.timeout(max(1.0, self._timeout_s)):
                await self._redis.aclose()
        except UNREACHABLE:
            log.warning("the connections to Redis could not be closed in order")

    async def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        refusal: ResponseError | None = None
        try:
            with self._breaker.attempt(UNREACHABLE):
                async with asyncio.timeout(self._timeout_s):
                    try:
                        return await function(*arguments, **options)
                    except ResponseError as error:  # Redis lives, and this key holds no string, say
                        refusal = error
        except TimeoutError as error:
            raise CacheError(f"Redis: no answer within {self._timeout_s * 1000:g} ms") from error
        except UNREACHABLE as error:
            raise CacheError(f"Redis: {type(error).__name__}: {error}") from error
        raise CacheError(f"Redis: {refusal}") from refusal


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


def _log_circuit(circuit: Circuit) -> None:
    if circuit is Circuit.OPEN:
        log.warning("Redis does not answer: the cache is left alone, and probed now and then")
    else:
        log.warning("Redis answers again: the cache is in use")
