"""A store in Redis that several services share; slow or broken Redis costs milliseconds, not requests."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from service.cache.cache import CacheError, CacheUnavailableError, Found, Store
from service.cache.circuit_breaker import Circuit, CircuitBreaker
from service.cache.loop_timeout import loop_timeout

log = logging.getLogger(__name__)

MAGIC = b"PTR1"
DIGEST_BYTES = 16
MAX_CONNECTIONS = 32
MAX_KEYS = 64
"""Asked for in one round trip: as many as a request may have images."""
MAX_CHUNK_BYTES = 8 * 2**20
"""Of values in one round trip, each way: all of them lie in memory at once, twice while they are sent."""
UNREACHABLE = (RedisError, OSError, TimeoutError, ValueError)
"""What redis-py raises where Redis is gone, silent, or something else than Redis."""


class RedisStore(Store):
    """Values with a version and a checksum of key and value before them, kept for `ttl_s` seconds.

    Many keys are one round trip over one connection, as long as their values are small. No call takes
    longer than `timeout_s`, connecting included, besides the time our own event loop was held
    (`loop_timeout`). At most half of it is spent waiting for one of our connections to become free: that
    is no fault of Redis. After `max_failures` in a row Redis is left alone for `cool_down_s`
    (`CircuitBreaker`). Values over `max_value_bytes` are neither sent nor fetched. The URL may name a user
    and password, TLS (`rediss://`) and redis-py's options (`?ssl_ca_certs=…`). Raises ValueError for a URL
    that cannot be one.
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
        # No time-outs of the sockets: they would count the time in which our own loop was held.
        pool: Any = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=None,
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis: Any = Redis.from_pool(pool)
        self._free_connections = asyncio.Semaphore(pool.max_connections)
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

    async def get_many(self, keys: Sequence[str]) -> list[Found]:
        if not keys:
            return []
        found: dict[str, Found] = {}
        try:
            async with self._call():
                for start in range(0, len(keys), MAX_KEYS):
                    await self._read(keys[start : start + MAX_KEYS], found)
        except CacheError as error:  # what came before it is as good as ever
            return [found.get(key, error) for key in keys]
        return [found[key] for key in keys]

    async def set_many(self, items: Sequence[tuple[str, bytes]]) -> list[CacheError | None]:
        faults: dict[str, CacheError | None] = {}
        sent = [(key, value) for key, value in items if len(value) <= self._max_value_bytes]
        if not sent:
            return [None] * len(items)
        try:
            async with self._call():
                for chunk in _chunks(sent):
                    await self._write(chunk, faults)
        except CacheError as error:
            for key, _ in sent:
                faults.setdefault(key, error)
        return [faults.get(key) for key, _ in items]

    async def close(self) -> None:
        try:
            async with asyncio.timeout(max(1.0, self._timeout_s)):
                await self._redis.aclose()
        except UNREACHABLE:
            log.warning("the connections to Redis could not be closed in order")

    async def _read(self, keys: Sequence[str], found: dict[str, Found]) -> None:
        # Ranges, so that no more is fetched than a value of ours may have, whatever lies there, and no more
        # in one reply than a chunk. A range may hold one byte over its share: then the value is longer.
        longest = len(MAGIC) + DIGEST_BYTES + self._max_value_bytes
        share = min(longest, MAX_CHUNK_BYTES // len(keys))
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.getrange(key, 0, share)
        for key, reply in zip(keys, await pipeline.execute(raise_on_error=False), strict=True):
            if share < longest and isinstance(reply, bytes) and len(reply) > share:
                alone = self._redis.pipeline(transaction=False).getrange(key, 0, longest)
                [reply] = await alone.execute(raise_on_error=False)
            found[key] = self._opened(key, reply)

    def _opened(self, key: str, reply: bytes | ResponseError) -> Found:
        if isinstance(reply, ResponseError):  # Redis lives, and this key holds no string, say
            return _refusal(reply)
        if len(reply) > len(MAGIC) + DIGEST_BYTES + self._max_value_bytes:
            return CacheError(f"a value has more than {self._max_value_bytes} bytes")
        if not reply:  # a range of nothing is empty, and ours never is
            return None
        try:
            return unseal(key, reply)
        except CacheError as error:
            return error.with_traceback(None)  # which would keep the value in memory

    async def _write(self, items: Sequence[tuple[str, bytes]], faults: dict[str, CacheError | None]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for key, value in items:
            pipeline.set(key, seal(key, value), ex=self._ttl_s)
        for (key, _), reply in zip(items, await pipeline.execute(raise_on_error=False), strict=True):
            faults[key] = _refusal(reply) if isinstance(reply, ResponseError) else None

    @asynccontextmanager
    async def _call(self) -> AsyncIterator[None]:
        """The bounds of one call of Redis. Raises CacheError for what is amiss with all of it."""
        try:
            with self._breaker.attempt(UNREACHABLE):
                async with self._connection() as left_s, loop_timeout(left_s):
                    yield
        except TimeoutError as error:
            raise CacheError(f"Redis: no answer within {self._timeout_s * 1000:g} ms") from error
        except UNREACHABLE as error:
            raise CacheError(f"Redis: {type(error).__name__}: {error}") from error

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[float]:
        """Waits until a connection of the pool is free; gives the seconds that are left for Redis."""
        loop = asyncio.get_running_loop()
        begun_at = loop.time()
        try:
            async with loop_timeout(self._timeout_s / 2):
                await self._free_connections.acquire()
        except TimeoutError as error:
            raise CacheUnavailableError("all connections to Redis are in use") from error
        waited_s = loop.time() - begun_at
        try:
            yield max(self._timeout_s - waited_s, self._timeout_s / 2)
        finally:
            self._free_connections.release()


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


def _chunks(items: Sequence[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """The items in order, of at most MAX_CHUNK_BYTES of values together, where a single one is not more."""
    chunk: list[tuple[str, bytes]] = []
    num_bytes = 0
    for key, value in items:
        if chunk and num_bytes + len(value) > MAX_CHUNK_BYTES:
            yield chunk
            chunk, num_bytes = [], 0
        chunk.append((key, value))
        num_bytes += len(value)
    yield chunk


def _refusal(error: ResponseError) -> CacheError:
    return CacheError(f"Redis: {error}")


def _log_circuit(circuit: Circuit) -> None:
    if circuit is Circuit.OPEN:
        log.warning("Redis does not answer: the cache is left alone, and probed now and then")
    else:
        log.warning("Redis answers again: the cache is in use")
