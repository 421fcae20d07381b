"""Clients that ask and do not read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

log = logging.getLogger(__name__)


class Transport(Protocol):
    """What is needed of an asyncio.Transport."""

    def get_write_buffer_size(self) -> int: ...

    def abort(self) -> None: ...


class StalledClients:
    """Aborts connections whose client has read nothing for `stall_s` seconds while there was something to."""

    def __init__(self, *, stall_s: float) -> None:
        self._stall_s = stall_s
        self._seen: WeakKeyDictionary[Transport, tuple[int, float]] = WeakKeyDictionary()

    def look(self, transports: Sequence[Transport], now: float) -> None:
        """To be called every second or so, with what is open at that time."""
        for transport in transports:
            size = transport.get_write_buffer_size()
            before, since = self._seen.get(transport, (0, now))
            if before == 0 or size < before:
                since = now
            self._seen[transport] = (size, since)
            if now - since >= self._stall_s:
                log.info("a client does not read its answer: its connection is closed")
                transport.abort()
