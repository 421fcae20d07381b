"""The store in this process keeps what was used last, within its bytes; a cache counts what it does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from service.cache.cache import Cache, CacheError, CacheUnavailableError, Found, Store
from service.cache.memory_store import MemoryStore


class Counts:
    """A CacheObserver that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def cache_hit(self, operation: str) -> None:
        self.events.append(("hit", operation))

    def cache_miss(self, operation: str) -> None:
        self.events.append(("miss", operation))

    def cache_error(self, operation: str) -> None:
        self.events.append(("error", operation))


class BrokenStore(Store):
    """A store that is never reachable."""

    def __init__(self, error: CacheError) -> None:
        self._error = error

    async def get_many(self, keys: Sequence[str]) -> list[Found]:
        return [self._error] * len(keys)

    async def set_many(self, items: Sequence[tuple[str, bytes]]) -> list[CacheError | None]:
        return [self._error] * len(items)

    async def close(self) -> None:
        raise self._error


class PartlyDamagedStore(MemoryStore):
    """A store in memory with a fault of its own for keys that end in `damaged`."""

    async def get_many(self, keys: Sequence[str]) -> list[Found]:
        found = await super().get_many(keys)
        return [self._fault(key) or value for key, value in zip(keys, found, strict=True)]

    async def set_many(self, items: Sequence[tuple[str, bytes]]) -> list[CacheError | None]:
        await super().set_many(items)
        return [self._fault(key) for key, _ in items]

    def _fault(self, key: str) -> CacheError | None:
        return CacheError("damaged") if key.endswith("damaged") else None


def test_what_was_set_is_found_and_what_was_not_is_missing() -> None:
    async def scenario() -> None:
        store = MemoryStore(max_bytes=100)
        await store.set("a", b"one")
        await store.set("b", b"")
        assert await store.get("a") == b"one"
        assert await store.get("b") == b""
        assert await store.get("c") is None

    asyncio.run(scenario())


def test_value_used_last_stays_and_value_used_first_goes() -> None:
    async def scenario() -> None:
        store = MemoryStore(max_bytes=20)
        await store.set("a", b"123456789")
        await store.set("b", b"123456789")
        await store.get("a")
        await store.set("c", b"123456789")
        assert await store.get("b") is None
        assert await store.get("a") == await store.get("c") == b"123456789"

    asyncio.run(scenario())


def test_value_larger_than_the_store_is_not_kept_and_its_older_one_is_forgotten() -> None:
    async def scenario() -> None:
        store = MemoryStore(max_bytes=10)
        await store.set("a", b"old")
        await store.set("a", b"1234567890")
        assert await store.get("a") is None
        assert (len(store), store.num_bytes) == (0, 0)

    asyncio.run(scenario())


def test_store_of_no_bytes_keeps_nothing() -> None:
    async def scenario() -> None:
        store = MemoryStore(max_bytes=0)
        await store.set("a", b"")
        assert await store.get("a") is None

    asyncio.run(scenario())


@given(
    max_bytes=st.integers(0, 60),
    writes=st.lists(st.tuples(st.sampled_from("abcdef"), st.binary(max_size=30)), max_size=30),
)
def test_bytes_are_counted_exactly_and_never_exceed_the_limit(
    max_bytes: int, writes: list[tuple[str, bytes]]
) -> None:
    async def scenario() -> None:
        store = MemoryStore(max_bytes=max_bytes)
        latest: dict[str, bytes] = {}
        for key, value in writes:
            await store.set(key, value)
            latest[key] = value
            kept = {name: found for name in latest if (found := await store.get(name)) is not None}
            assert kept.items() <= latest.items()
            assert (key in kept) == (len(key) + len(value) <= max_bytes)
            assert store.num_bytes == sum(len(name) + len(found) for name, found in kept.items())
            assert store.num_bytes <= max_bytes
            assert len(store) == len(kept)

    asyncio.run(scenario())


def test_cache_counts_hits_and_misses_by_operation() -> None:
    async def scenario() -> None:
        counts = Counts()
        cache = Cache(MemoryStore(max_bytes=1000), namespace="digest", observer=counts)
        assert await cache.get("encode", "x") is None
        await cache.set("encode", "x", b"value")
        assert await cache.get("encode", "x") == b"value"
        assert await cache.get("invert", "x") is None
        cache.lying("invert")
        expected = [("miss", "encode"), ("hit", "encode"), ("miss", "invert"), ("error", "invert")]
        assert counts.events == expected

    asyncio.run(scenario())


def test_caches_of_two_bundles_on_one_store_do_not_mix() -> None:
    async def scenario() -> None:
        store = MemoryStore(max_bytes=1000)
        one, other = (Cache(store, namespace=name, observer=Counts()) for name in ("one", "other"))
        await one.set("encode", "x", b"value")
        assert await other.get("encode", "x") is None
        assert await one.get("encode", "x") == b"value"

    asyncio.run(scenario())


def test_store_that_is_not_asked_is_a_miss_and_no_error() -> None:
    async def scenario() -> None:
        counts = Counts()
        cache = Cache(BrokenStore(CacheUnavailableError("closed")), namespace="digest", observer=counts)
        await cache.set("encode", "x", b"value")
        assert await cache.get("encode", "x") is None
        assert counts.events == [("miss", "encode")]

    asyncio.run(scenario())


def test_fault_of_the_store_is_an_error_and_a_miss_and_never_raised() -> None:
    async def scenario() -> None:
        counts = Counts()
        cache = Cache(BrokenStore(CacheError("no store")), namespace="digest", observer=counts)
        await cache.set("encode", "x", b"value")
        assert await cache.get("encode", "x") is None
        assert counts.events == [("error", "encode"), ("error", "encode"), ("miss", "encode")]

    asyncio.run(scenario())


def test_many_values_are_found_in_the_order_of_their_keys() -> None:
    async def scenario() -> None:
        store = MemoryStore(max_bytes=1000)
        await store.set_many([("a", b"one"), ("b", b""), ("c", b"three")])
        assert await store.get_many(["c", "unknown", "a", "b", "a"]) == [b"three", None, b"one", b"", b"one"]
        assert await store.get_many([]) == []

    asyncio.run(scenario())


def test_many_keys_are_counted_one_by_one() -> None:
    async def scenario() -> None:
        counts = Counts()
        cache = Cache(PartlyDamagedStore(max_bytes=1000), namespace="digest", observer=counts)
        await cache.set_many("encode", [("a", b"one"), ("damaged", b"two"), ("c", b"three")])
        assert counts.events == [("error", "encode")]
        counts.events.clear()
        assert await cache.get_many("encode", ["a", "b", "damaged", "c"]) == [b"one", None, None, b"three"]
        expected = {("hit", "encode"): 2, ("miss", "encode"): 2, ("error", "encode"): 1}
        assert Counter(counts.events) == expected

    asyncio.run(scenario())


def test_store_that_is_not_asked_for_many_keys_is_a_miss_of_each_and_no_error() -> None:
    async def scenario() -> None:
        counts = Counts()
        cache = Cache(BrokenStore(CacheUnavailableError("closed")), namespace="digest", observer=counts)
        await cache.set_many("encode", [("x", b"value"), ("y", b"value")])
        assert await cache.get_many("encode", ["x", "y"]) == [None, None]
        assert counts.events == [("miss", "encode")] * 2

    asyncio.run(scenario())
