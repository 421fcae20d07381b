"""A bounded store in this process, least recently used first out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from service.cache.cache import CacheError, Found, Store


class MemoryStore(Store):
    """Holds at most `max_bytes` of values and keys; one larger than that is not kept."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[str, bytes] = OrderedDict()
        self._num_bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    @property
    def num_bytes(self) -> int:
        return self._num_bytes

    async def get_many(self, keys: Sequence[str]) -> list[Found]:
        return [self._find(key) for key in keys]

    async def set_many(self, items: Sequence[tuple[str, bytes]]) -> list[CacheError | None]:
        for key, value in items:
            self._keep(key, value)
        return [None] * len(items)

    async def close(self) -> None:
        """Nothing to close."""

    def _find(self, key: str) -> bytes | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def _keep(self, key: str, value: bytes) -> None:
        previous = self._values.pop(key, None)
        if previous is not None:
            self._num_bytes -= _size(key, previous)
        if _size(key, value) > self._max_bytes:
            return
        self._values[key] = value
        self._num_bytes += _size(key, value)
        while self._num_bytes > self._max_bytes:
            oldest, forgotten = self._values.popitem(last=False)
            self._num_bytes -= _size(oldest, forgotten)


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value)
