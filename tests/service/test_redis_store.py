"""A cache in a real Redis: what it keeps, and that no fault of it is ever raised."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from service.cache.cache import Cache, CacheError, CacheUnavailableError
from service.cache.loop_timeout import NUM_LAST_TURNS, NUM_SLICES, loop_timeout
from service.cache.redis_store import MAX_CHUNK_BYTES, MAX_CONNECTIONS, MAX_KEYS, RedisStore, seal, unseal
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


class HeldLoop(asyncio.SelectorEventLoop):
    """An event loop that can be told it was held: its clock leaps, and its timers are overdue."""

    held_s = 0.0

    def time(self) -> float:
        return super().time() + self.held_s


def run_on_held_loop(scenario: Callable[[HeldLoop], Coroutine[None, None, None]]) -> None:
    loop = HeldLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(scenario(loop))


@contextlib.asynccontextmanager
async def falling_silent(server: Server, *, after_bytes: int) -> AsyncIterator[str]:
    """The URL of a Redis that passes on so many bytes of its answers on a connection, and no more."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, num_bytes: int) -> None:
        while num_bytes > 0 and (data := await reader.read(min(num_bytes, 2**18))):
            num_bytes -= len(data)
            writer.write(data)
            await writer.drain()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection("127.0.0.1", server.port)
        answering = asyncio.create_task(pass_on(answers, writer, after_bytes))
        with contextlib.suppress(ConnectionError):
            await pass_on(reader, questions, sys.maxsize)
        await asyncio.gather(answering, return_exceptions=True)
        questions.close()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as proxy:
        yield f"redis://:{PASSWORD}@127.0.0.1:{proxy.sockets[0].getsockname()[1]}/0"


def make_store(
    url: str, *, cool_down_s: float = 0.0, timeout_s: float = PATIENT_S, max_failures: int = 1
) -> RedisStore:
    return RedisStore(url, ttl_s=100, timeout_s=timeout_s, cool_down_s=cool_down_s, max_failures=max_failures)


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
    "stored", [b"PTR1", b"garbage", b"PTR2" + b"\x00" * 30, seal("patronus:x:encode:other", b"value")]
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


def test_foreign_value_larger_than_any_of_ours_is_not_fetched(server: Server) -> None:
    with server.client() as client:
        client.set("patronus:x:encode:key", b"x" * 10_000_000)

    async def scenario() -> None:
        counts = Counts()
        store = RedisStore(server.url, ttl_s=100, timeout_s=PATIENT_S, max_value_bytes=1000)
        with pytest.raises(CacheError, match="a value has more than 1000 bytes"):
            await store.get("patronus:x:encode:key")
        assert await Cache(store, namespace="x", observer=counts).get("encode", "key") is None
        assert counts.events == ["error", "miss"]
        await store.set("largest", b"x" * 1000)
        assert await store.get("largest") == b"x" * 1000
        await store.close()
        with server.client() as client:
            assert client.info("stats")["total_net_output_bytes"] < 1_000_000

    asyncio.run(scenario())


def test_full_redis_refuses_writes_and_still_answers_reads(server: Server) -> None:
    async def scenario() -> None:
        counts = Counts()
        store = make_store(server.url, cool_down_s=1000.0)
        cache = Cache(store, namespace="x", observer=counts)
        await cache.set("encode", "key", b"value")
        with server.client() as client:
            client.config_set("maxmemory", "1")
        await cache.set("encode", "other", b"value")
        assert counts.events == ["error"]
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


def test_what_is_no_redis_is_an_error_and_a_miss() -> None:
    async def scenario() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(talk, "127.0.0.1", 0) as web:
            counts = Counts()
            store = make_store(f"redis://127.0.0.1:{web.sockets[0].getsockname()[1]}/0")
            assert await Cache(store, namespace="x", observer=counts).get("encode", "key") is None
            assert counts.events == ["error", "miss"]
            assert store.is_left_alone
            await store.close()

    asyncio.run(scenario())


def test_frozen_redis_is_errors_then_misses_at_once_and_hits_again_when_thawed(server: Server) -> None:
    async def scenario() -> None:
        now = 0.0
        counts = Counts()
        store = RedisStore(
            server.url, ttl_s=100, timeout_s=0.5, cool_down_s=5.0, max_failures=3, clock=lambda: now
        )
        cache = Cache(store, namespace="x", observer=counts)
        patient = make_store(server.url)
        await Cache(patient, namespace="x", observer=counts).set("encode", "key", b"value")
        await patient.close()
        server.freeze()
        for _ in range(10):
            assert await cache.get("encode", "key") is None
        await cache.set("encode", "key", b"other")
        assert counts.events == ["error", "miss"] * 3 + ["miss"] * 7
        assert store.is_left_alone
        now = 5.0
        assert await cache.get("encode", "key") is None  # the probe
        assert counts.events[-2:] == ["error", "miss"]
        server.thaw()
        assert await cache.get("encode", "key") is None
        assert counts.events[-2:] == ["miss", "miss"]
        for _ in range(50):  # a machine may be too busy for a probe in half a second
            now += 5.0
            if await cache.get("encode", "key") == b"value":
                break
        assert counts.events[-1] == "hit"
        assert not store.is_left_alone
        await store.close()

    asyncio.run(scenario())


def test_calls_that_were_given_up_leave_their_connections_usable(server: Server) -> None:
    async def scenario() -> None:
        impatient = make_store(server.url, timeout_s=0.05, max_failures=10**6)
        patient = make_store(server.url)
        await patient.set("key", b"value")
        server.freeze()
        refused = await asyncio.gather(
            *(impatient.get("key") for _ in range(5 * MAX_CONNECTIONS)), return_exceptions=True
        )
        assert all(isinstance(error, CacheError) for error in refused)
        server.thaw()
        assert await patient.get("key") == b"value"  # it runs again
        found = None
        for _ in range(50):  # a machine may be too busy for an answer in so short a time
            with contextlib.suppress(CacheError):
                found = await impatient.get("key")
            if found is not None:
                break
        assert found == b"value"
        await impatient.close()
        await patient.close()

    asyncio.run(scenario())


def test_no_more_connections_are_opened_than_the_bound(server: Server) -> None:
    async def scenario() -> None:
        store = make_store(server.url)
        await asyncio.gather(*(store.get(f"key {i}") for i in range(10 * MAX_CONNECTIONS)))
        with server.client() as client:
            assert len(client.client_list()) <= MAX_CONNECTIONS + 1
        await store.close()

    asyncio.run(scenario())


def test_frozen_redis_does_not_keep_a_store_from_closing(server: Server) -> None:
    async def scenario() -> None:
        store = make_store(server.url)
        await store.set("key", b"value")
        server.freeze()
        await store.close()

    asyncio.run(scenario())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A throw-away certificate for 127.0.0.1, and its key, in one PEM file."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not on the PATH: it makes the certificate that Redis shows")
    directory = tmp_path_factory.mktemp("tls")
    pem = directory / "both.pem"
    command = [program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=redis"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", "c.pem", "-keyout", "k.pem"]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    pem.write_bytes((directory / "c.pem").read_bytes() + (directory / "k.pem").read_bytes())
    return pem


@pytest.fixture
def tls_server(tmp_path: Path, certificate: Path) -> Iterator[Server]:
    program = shutil.which("redis-server")
    assert program is not None, "redis-server is not on the PATH: the project's set-up installs it"
    server = Server(program, tmp_path, certificate)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def test_tls_and_password_come_from_the_url(tls_server: Server) -> None:
    async def scenario() -> None:
        store = make_store(tls_server.url)
        await store.set("key", b"value")
        assert await store.get("key") == b"value"
        await store.close()

    asyncio.run(scenario())


def test_certificate_that_nobody_vouches_for_is_refused(tls_server: Server) -> None:
    async def scenario() -> None:
        store = make_store(tls_server.url.partition("?")[0])
        with pytest.raises(CacheError, match="certificate verify failed") as failure:
            await store.get("key")
        assert PASSWORD not in str(failure.value)
        await store.close()

    asyncio.run(scenario())


def test_redis_that_speaks_no_tls_is_refused_where_tls_is_asked_for(server: Server) -> None:
    async def scenario() -> None:
        store = make_store(server.url.replace("redis://", "rediss://"), timeout_s=1.0)
        with pytest.raises(CacheError):
            await store.get("key")
        await store.close()

    asyncio.run(scenario())


def test_after_a_fault_redis_is_left_alone_until_the_cool_down_is_over(server: Server) -> None:
    async def scenario() -> None:
        now = 0.0
        store = RedisStore(
            server.url,
            ttl_s=100,
            timeout_s=PATIENT_S,
            cool_down_s=5.0,
            max_failures=1,
            clock=lambda: now,
        )
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


def test_many_values_are_found_in_the_order_of_their_keys_over_one_connection(server: Server) -> None:
    async def scenario() -> None:
        store = make_store(server.url)
        keys = [f"key {i}" for i in range(3 * MAX_KEYS + 1)]
        assert await store.set_many([(key, key.encode()) for key in keys]) == [None] * len(keys)
        asked = ["unknown", *reversed(keys), keys[0]]
        expected = [None, *(key.encode() for key in reversed(keys)), keys[0].encode()]
        assert await store.get_many(asked) == expected
        with server.client() as client:
            assert len(client.client_list()) == 2
            assert all(0 < client.ttl(key) <= 100 for key in keys[:3])
        await store.close()

    asyncio.run(scenario())


def test_no_keys_are_not_asked_for(server: Server) -> None:
    server.kill()

    async def scenario() -> None:
        store = RedisStore(server.url, ttl_s=100, timeout_s=PATIENT_S, max_value_bytes=4)
        assert await store.get_many([]) == []
        assert await store.set_many([]) == []
        assert await store.set_many([("large", b"12345")]) == [None]
        await store.close()

    asyncio.run(scenario())


def test_faults_of_some_keys_do_not_spoil_the_others(server: Server) -> None:
    async def scenario() -> None:
        counts = Counts()
        store = make_store(server.url, cool_down_s=1000.0)
        cache = Cache(store, namespace="x", observer=counts)
        keys = ["a", "list", "b", "damaged", "unknown", "large", "c"]
        await cache.set_many("encode", [(key, key.encode()) for key in keys if key != "unknown"])
        with server.client() as client:
            client.delete("patronus:x:encode:list")
            client.rpush("patronus:x:encode:list", b"item")
            client.setrange("patronus:x:encode:damaged", 21, b"\xff")
            client.set("patronus:x:encode:large", b"x" * 20_000_000)
        assert await cache.get_many("encode", keys) == [b"a", None, b"b", None, None, None, b"c"]
        assert Counter(counts.events) == {"hit": 3, "error": 3, "miss": 4}
        assert not store.is_left_alone
        await store.close()

    asyncio.run(scenario())


def test_refused_writes_are_counted_one_by_one(server: Server) -> None:
    async def scenario() -> None:
        counts = Counts()
        store = make_store(server.url, cool_down_s=1000.0)
        cache = Cache(store, namespace="x", observer=counts)
        await cache.set_many("encode", [("a", b"one"), ("b", b"two")])
        with server.client() as client:
            client.config_set("maxmemory", "1")
        await cache.set_many("encode", [("c", b"three"), ("d", b"four")])
        assert counts.events == ["error"] * 2
        assert await cache.get_many("encode", ["a", "b"]) == [b"one", b"two"]
        await store.close()

    asyncio.run(scenario())


def test_values_larger_than_their_share_of_a_round_trip_are_whole(server: Server) -> None:
    async def scenario() -> None:
        store = make_store(server.url)
        share = MAX_CHUNK_BYTES // MAX_KEYS
        sizes = [0, share - 21, share - 20, share - 19, share - 18, 3 * share, MAX_CHUNK_BYTES + 1]
        values = {f"key {i}": b"x" * (sizes[i] if i < len(sizes) else i) for i in range(MAX_KEYS)}
        assert not any(await store.set_many(list(values.items())))
        assert await store.get_many(list(values)) == list(values.values())
        await store.close()

    asyncio.run(scenario())


def test_foreign_values_larger_than_any_of_ours_are_not_fetched_among_others(server: Server) -> None:
    with server.client() as client:
        for i in range(10):
            client.set(f"foreign {i}", b"x" * 10_000_000)

    async def scenario() -> None:
        store = RedisStore(server.url, ttl_s=100, timeout_s=PATIENT_S, max_value_bytes=1000)
        await store.set("ours", b"x" * 1000)
        *foreign, ours = await store.get_many([*(f"foreign {i}" for i in range(10)), "ours"])
        assert all(isinstance(fault, CacheError) for fault in foreign)
        assert ours == b"x" * 1000
        await store.close()
        with server.client() as client:
            assert client.info("stats")["total_net_output_bytes"] < 1_000_000

    asyncio.run(scenario())


def test_what_came_before_redis_fell_silent_is_used(server: Server) -> None:
    async def scenario() -> None:
        patient = make_store(server.url)
        keys = [f"key {i}" for i in range(2 * MAX_KEYS)]
        await patient.set_many([(f"patronus:x:encode:{key}", b"x" * 10_000) for key in keys])
        await patient.close()
        async with falling_silent(server, after_bytes=MAX_KEYS * 10_500) as url:
            counts = Counts()
            store = make_store(url, timeout_s=1.0)
            values = await Cache(store, namespace="x", observer=counts).get_many("encode", keys)
            assert values == [b"x" * 10_000] * MAX_KEYS + [None] * MAX_KEYS
            assert Counter(counts.events) == {"hit": MAX_KEYS, "error": MAX_KEYS, "miss": MAX_KEYS}
            assert store.is_left_alone
            await store.close()

    asyncio.run(scenario())


def test_what_was_written_before_redis_fell_silent_is_no_error(server: Server) -> None:
    async def scenario() -> None:
        num_written = 1000
        bytes_each = MAX_CHUNK_BYTES // num_written
        answer_bytes = len(b"+OK\r\n")
        async with falling_silent(server, after_bytes=num_written * answer_bytes * 3 // 2) as url:
            store = make_store(url, timeout_s=3.0)
            faults = await store.set_many([(f"key {i}", b"x" * bytes_each) for i in range(2 * num_written)])
            assert faults[:num_written] == [None] * num_written
            assert all(isinstance(fault, CacheError) for fault in faults[num_written:])
            assert store.is_left_alone
            await store.close()

    asyncio.run(scenario())


def test_many_large_values_are_not_all_in_memory_at_once(server: Server) -> None:
    value = b"x" * 2**22
    num_values = 40
    most_bytes = num_values * len(value) // 2

    async def scenario() -> None:
        store = make_store(server.url)
        keys = [f"key {i}" for i in range(num_values)]
        assert not any(await store.set_many([(key, value) for key in keys]))
        assert tracemalloc.get_traced_memory()[1] < most_bytes
        with server.client() as client:
            for key in keys:
                client.setrange(key, 0, b"foreign")
        tracemalloc.reset_peak()
        assert all(isinstance(fault, CacheError) for fault in await store.get_many(keys))
        assert tracemalloc.get_traced_memory()[1] < most_bytes
        await store.close()

    tracemalloc.start()
    try:
        asyncio.run(scenario())
    finally:
        tracemalloc.stop()


def test_killed_redis_is_an_error_and_a_miss_of_every_key_and_one_failure(server: Server) -> None:
    server.kill()

    async def scenario() -> None:
        counts = Counts()
        store = make_store(server.url, max_failures=2)
        cache = Cache(store, namespace="x", observer=counts)
        await cache.set_many("encode", [("a", b"one"), ("b", b"two")])
        assert not store.is_left_alone
        assert await cache.get_many("encode", ["a", "b", "c"]) == [None] * 3
        assert counts.events == ["error"] * 5 + ["miss"] * 3
        assert store.is_left_alone
        await store.close()

    asyncio.run(scenario())


def test_waiting_for_a_connection_of_ours_is_no_failure_of_redis(server: Server) -> None:
    async def scenario() -> None:
        store = make_store(server.url, timeout_s=1.0, max_failures=MAX_CONNECTIONS + 1, cool_down_s=1000.0)
        server.freeze()
        faults = await asyncio.gather(
            *(store.get("key") for _ in range(2 * MAX_CONNECTIONS)), return_exceptions=True
        )
        assert not any(isinstance(fault, CacheUnavailableError) for fault in faults[:MAX_CONNECTIONS])
        assert all(isinstance(fault, CacheUnavailableError) for fault in faults[MAX_CONNECTIONS:])
        assert not store.is_left_alone  # only those that were asked of Redis count
        await store.close()

    asyncio.run(scenario())


def test_answer_that_our_own_loop_was_too_busy_to_read_in_time_is_used(server: Server) -> None:
    async def scenario(loop: HeldLoop) -> None:
        store = make_store(server.url, timeout_s=PATIENT_S, max_failures=1, cool_down_s=1000.0)
        await store.set("key", b"value")
        for num_turns in range(8):  # held before it is sent, while it is on its way, while it is read
            reading = asyncio.create_task(store.get("key"))
            for _ in range(num_turns):
                await asyncio.sleep(0)
            loop.held_s += 100 * PATIENT_S
            assert await reading == b"value"
        assert not store.is_left_alone
        await store.close()

    run_on_held_loop(scenario)


def test_time_out_counts_a_hold_of_the_loop_as_one_slice_however_long() -> None:
    async def scenario(loop: HeldLoop) -> None:
        arrived = asyncio.Event()

        async def hold_and_arrive(num_holds: int) -> None:
            for _ in range(num_holds):
                loop.held_s += 1000.0
                await asyncio.sleep(0)
            arrived.set()

        holding = asyncio.create_task(hold_and_arrive(NUM_SLICES))
        async with loop_timeout(100.0):
            await arrived.wait()
        await holding

    run_on_held_loop(scenario)


def test_time_out_lets_what_arrived_during_the_last_hold_be_read() -> None:
    async def scenario(loop: HeldLoop) -> None:
        arrived = asyncio.Event()

        async def hold_and_read() -> None:
            for _ in range(2 * NUM_SLICES):  # a slice that began in a turn can end in the one after the next
                loop.held_s += 1000.0
                await asyncio.sleep(0)
            for _ in range(NUM_LAST_TURNS // 2):  # an answer is read in parts
                await asyncio.sleep(0)
            arrived.set()

        reading = asyncio.create_task(hold_and_read())
        async with loop_timeout(100.0):
            await arrived.wait()
        await reading

    run_on_held_loop(scenario)


def test_time_out_of_a_loop_that_is_always_held_ends_all_the_same() -> None:
    async def scenario(loop: HeldLoop) -> None:
        async def hold() -> None:
            while True:
                loop.held_s += 1000.0
                await asyncio.sleep(0)

        holding = asyncio.create_task(hold())
        with pytest.raises(TimeoutError):
            async with loop_timeout(100.0):
                await asyncio.Event().wait()
        holding.cancel()

    run_on_held_loop(scenario)


def test_time_out_that_was_not_reached_leaves_nothing_behind() -> None:
    async def scenario(loop: HeldLoop) -> None:
        async with loop_timeout(100.0):
            pass
        with pytest.raises(KeyError):
            async with loop_timeout(100.0):
                raise KeyError("ours")
        for _ in range(50):
            loop.held_s += 1000.0
            await asyncio.sleep(0)

    run_on_held_loop(scenario)


def test_sealed_value_opens_only_under_its_own_key() -> None:
    assert unseal("key", seal("key", b"value")) == b"value"
    with pytest.raises(CacheError, match="damaged"):
        unseal("other", seal("key", b"value"))
