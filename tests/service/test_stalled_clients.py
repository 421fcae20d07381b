"""Clients that ask and do not read: who loses the connection, and who keeps it."""

from __future__ import annotations

import itertools

import pytest

from service.stalled_clients import StalledClients


class FakeTransport:
    """Holds as many unsent bytes as it is told."""

    def __init__(self) -> None:
        self.size = 0
        self.is_aborted = False

    def get_write_buffer_size(self) -> int:
        return self.size

    def abort(self) -> None:
        self.is_aborted = True


def look(sizes: list[int], stall_s: float = 3.0) -> list[bool]:
    """Whether the connection is aborted after each second with that many unsent bytes."""
    transport, stalls = FakeTransport(), StalledClients(stall_s=stall_s)
    aborted = []
    for now, size in enumerate(sizes):
        transport.size = size
        stalls.look([transport], float(now))
        aborted.append(transport.is_aborted)
    return aborted


def test_client_that_reads_nothing_is_left() -> None:
    assert look([0, 100, 100, 100, 100, 100]) == [False, False, False, False, True, True]


@pytest.mark.parametrize(
    "sizes",
    [
        [0] * 20,  # nothing to read
        list(range(100, 80, -1)),  # slow, but reading
        [100, 100, 99] * 6,  # slower
        [100, 100, 50] * 6,  # reading while more is written
    ],
)
def test_client_that_reads_or_has_nothing_to_read_keeps_its_connection(sizes: list[int]) -> None:
    assert not any(look(sizes))


def test_growing_backlog_is_no_progress() -> None:
    assert look(list(itertools.accumulate([10] * 6)))[-1]
