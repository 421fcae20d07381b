"""A cache in a real Redis: what it keeps, and that no fault of it is ever raised."""

from __future__ import annotations

import asyncio
import socket

import pytest

from service.cache.cache import Cache, CacheError
from service.cache.redis_store import RedisStore, seal, unseal
from tests.service.redis_process import PASSWORD, Server

PATIENT_S = 10.0
"""A timeout of the store that a busy machine does not reach."""


class Counts:
    """A CacheObserver that remembers."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def cache_hit(self, operation: str) -> None:
        self.events.append("hit")

    def cache_miss(self, operation: str) -> None:
        self.events.append("miss")

    def cache_error(self, operation: str) -> None:
        self.events.append("error")


def make_store(url: str, *, cool_down_s: float = 0.0, timeout_s: float = PATIENT_S) -> RedisStore:
    return RedisStore(url, ttl_s=100, timeout_s=timeout_s, cool_down_s=cool_down_s)


def test_what_was_set_is_found_also_by_another_service(server: Server) -> None:
    async def scenario() -> None:
        one, other = make_store(server.url), make_store(server.url)
        await one.set("key", b"\x00value\xff")
        await one.set("empty", b"")
        assert await other.get("key") == b"\x00value\xff"
        assert await other.get("empty") == b""
        assert await other.get("unknown") is None
        await one.close()
        await other.close()

    asyncio.run(scenario())


def test_values_expire(server: Server) -> None:
    async def scenario() -> None:
        store = make_store(server.url)
        await store.set("key", b"value")
        await store.close()

    asyncio.run(scenario())
    with server.client() as client:
        assert 0 < client.ttl("key") <= 100


def test_value_beyond_the_limit_is_not_sent(server: Server) -> None:
    async def scenario() -> None:
        store = RedisStore(server.url, ttl_s=100, timeout_s=PATIENT_S, max_value_bytes=4)
        await store.set("small", b"1234")
        await store.set("large", b"12345")
        assert await store.get("small") == b"1234"
        assert await store.get("large") is None
        await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "stored", [b"", b"PTR1", b"garbage", b"PTR2" + b"\x00" * 30, seal("patronus:x:encode:other", b"value")]
)
def test_bytes_that_were_not_stored_by_us_are_an_error_and_a_miss(server: Server, stored: bytes) -> None:
    with server.client() as client:
        client.set("patronus:x:encode:key", stored)

    async def scenario() -> None:
        counts = Counts()
        store = make_store(server.url)
        cache = Cache(store, namespace="x", observer=counts)
        assert await cache.get("encode", "key") is None
        assert counts.events == ["error", "miss"]
        await cache.set("encode", "key", b"value")
        assert await cache.get("encode", "key") == b"value"
        await store.close()

    asyncio.run(scenario())


def test_damaged_value_is_an_error_and_a_miss(server: Server) -> None:
    async def scenario() -> None:
        counts = Counts()
        store = make_store(server.url)
        cache = Cache(store, namespace="x", observer=counts)
        await cache.set("encode", "key", b"value")
        with server.client() as client:
            client.setrange("patronus:x:encode:key", 21, b"\xff")
        assert await cache.get("encode", "key") is None
        assert counts.events == ["error", "miss"]
        await store.close()

    asyncio.run(scenario())


def test_key_that_holds_no_string_is_an_error_and_a_miss(server: Server) -> None:
    with server.client() as client:
        client.rpush("patronus:x:encode:key", b"item")

    async def scenario() -> None:
        counts = Counts()
        store = make_store(server.url)
        assert await Cache(store, namespace="x", observer=counts).get("encode", "key") is None
        assert counts.events == ["error", "miss"]
        await store.close()

    asyncio.run(scenario())


def test_key_that_holds_no_string_is_healed_by_the_next_write(server: Server) -> None:
    with server.client() as client:
        client.rpush("key", b"item")

    async def scenario() -> None:
        store = make_store(server.url, cool_down_s=1000.0)
        with pytest.raises(CacheError):
            await store.get("key")
        await store.set("key", b"value")
        assert await store.get("key") == b"value"
        await store.close()

    asyncio.run(scenario())


def test_restart_of_redis_costs_what_it_held_and_nothing_more(server: Server) -> None:
    async def scenario() -> None:
        counts = Counts()
        store = make_store(server.url)
        cache = Cache(store, namespace="x", observer=counts)
        await cache.set("encode", "key", b"value")
        server.kill()
        server.start()
        assert await cache.get("encode", "key") is None
        assert counts.events[-1] == "miss"
        await cache.set("encode", "key", b"value")
        assert await cache.get("encode", "key") == b"value"
        await store.close()

    asyncio.run(scenario())


def test_killed_redis_is_errors_and_misses_and_never_raised(server: Server) -> None:
    async def scenario() -> None:
        counts = Counts()
        store = make_store(server.url)
        cache = Cache(store, namespace="x", observer=counts)
        await cache.set("encode", "key", b"value")
        server.kill()
        assert await cache.get("encode", "key") is None
        await cache.set("encode", "key", b"value")
        assert counts.events == ["error", "miss", "error"]
        await store.close()

    asyncio.run(scenario())


def test_redis_that_hangs_is_an_error_and_a_miss() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"

        async def scenario() -> None:
            counts = Counts()
            store = make_store(url, timeout_s=0.05)
            assert await Cache(store, namespace="x", observer=counts).get("encode", "key") is None
            assert counts.events == ["error", "miss"]
            await store.close()

        asyncio.run(scenario())


def test_after_a_fault_redis_is_left_alone_until_the_cool_down_is_over(server: Server) -> None:
    async def scenario() -> None:
        now = 0.0
        store = RedisStore(server.url, ttl_s=100, timeout_s=PATIENT_S, cool_down_s=5.0, clock=lambda: now)
        await store.set("key", b"value")
        server.kill()
        with pytest.raises(CacheError, match=r"^Redis: "):
            await store.get("key")
        server.start()
        now = 4.9
        with pytest.raises(CacheError, match="left alone"):
            await store.get("key")
        now = 5.0
        assert await store.get("key") is None
        await store.set("key", b"value")
        assert await store.get("key") == b"value"
        await store.close()

    asyncio.run(scenario())


def test_value_that_is_not_ours_does_not_start_a_cool_down(server: Server) -> None:
    with server.client() as client:
        client.set("foreign", b"garbage")

    async def scenario() -> None:
        store = make_store(server.url, cool_down_s=1000.0)
        with pytest.raises(CacheError, match="damaged"):
            await store.get("foreign")
        await store.set("key", b"value")
        assert await store.get("key") == b"value"
        await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("login", ["", ":wrong@"])
def test_wrong_password_is_an_error_that_does_not_tell_it(server: Server, login: str) -> None:
    async def scenario() -> None:
        store = make_store(f"redis://{login}127.0.0.1:{server.port}/0")
        with pytest.raises(CacheError) as failure:
            await store.get("key")
        assert "wrong@" not in str(failure.value)
        assert PASSWORD not in str(failure.value)
        await store.close()

    asyncio.run(scenario())


def test_cancelled_read_leaves_no_answer_behind_for_the_next_one(server: Server) -> None:
    async def scenario() -> None:
        store = make_store(server.url)
        for i in range(20):
            await store.set(f"key {i}", b"value %d" % i)
        for i in range(20):
            reading = asyncio.create_task(store.get(f"key {i}"))
            for _ in range(i % 7):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            assert await store.get(f"key {19 - i}") == b"value %d" % (19 - i)
        await store.close()

    asyncio.run(scenario())


def test_many_reads_at_once_get_their_own_values(server: Server) -> None:
    async def scenario() -> None:
        store = make_store(server.url)
        keys = [f"key {i}" for i in range(200)]
        await asyncio.gather(*(store.set(key, key.encode()) for key in keys))
        found = await asyncio.gather(*(store.get(key) for key in keys))
        assert found == [key.encode() for key in keys]
        await store.close()

    asyncio.run(scenario())


def test_sealed_value_opens_only_under_its_own_key() -> None:
    assert unseal("key", seal("key", b"value")) == b"value"
    with pytest.raises(CacheError, match="damaged"):
        unseal("other", seal("key", b"value"))
