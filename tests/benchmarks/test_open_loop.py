"""Arrivals, what a window's records add up to, and a client that no slow answer holds back."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
import uvloop

from benchmarks.http_connections import Answer, Call
from benchmarks.open_loop import (
    TIMED_OUT,
    Arrival,
    Record,
    ask,
    jain_index,
    poisson_arrivals,
    run_closed_loop,
    run_open_loop,
    summarize,
)

CALL = Call("encode", "/encode", b"{}")


def record(
    seconds: float, *, kind: str = "encode", due_s: float = 0.0, status: int = 200, error: str = ""
) -> Record:
    return Record(kind, due_s, seconds, 0.0, status, error)


class Desk:
    """A server that answers /encode with what it was sent, keeps /held waiting, and refuses /full.

    /held is answered when `expected` have asked. After /last it closes the connection.
    """

    def __init__(self, expected: int = 2) -> None:
        self.num_held = 0
        self.num_connections = 0
        self.expected = expected
        self.all_held = asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            self.all_held.set()
            server.close()
            await asyncio.gather(*self._serving)  # until the clients have closed their connections

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        serving = asyncio.current_task()
        assert serving is not None
        self._serving.add(serving)
        path = b""
        while path != b"/last" and (head := await _head(reader)):
            path = head.split(b" ")[1]
            body = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            if path == b"/held":
                self.num_held += 1
                if self.num_held == self.expected:
                    self.all_held.set()
                await self.all_held.wait()
            status = b"503 Full" if path == b"/full" else b"200 OK"
            # In chunks, which is the harder way to read.
            chunks = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            writer.write(
                b"HTTP/1.1 " + status + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
            )
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _head(reader: asyncio.StreamReader) -> bytes:
    """A request's head; empty where the client has left."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def test_the_same_seed_gives_the_same_arrivals() -> None:
    def due(seed: int) -> list[float]:
        arrivals = poisson_arrivals(itertools.repeat(CALL), rate=50.0, duration_s=4.0, seed=seed)
        return [arrival.due_s for arrival in arrivals]

    assert due(1) == due(1)
    assert due(1) != due(2)


def test_arrivals_are_a_poisson_process_of_the_rate() -> None:
    arrivals = poisson_arrivals(itertools.repeat(CALL), rate=200.0, duration_s=100.0, seed=0)
    gaps = np.diff([arrival.due_s for arrival in arrivals])
    assert len(arrivals) == pytest.approx(20_000, rel=0.03)
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # exponential gaps
    assert max(arrival.due_s for arrival in arrivals) < 100.0


def test_an_answer_within_three_solo_times_is_good() -> None:
    summary = summarize(
        [record(0.29), record(0.31), record(0.1, kind="quick")], solo_s={"encode": 0.1, "quick": 0.03}
    )
    assert (summary.num_requests, summary.num_ok, summary.num_good) == (3, 3, 1)


def test_goodput_is_good_answers_per_second_of_the_window() -> None:
    records = [record(0.1, due_s=0.5 * i) for i in range(20)]
    summary = summarize(records, solo_s={"encode": 0.1}, from_s=2.0, until_s=6.0)
    assert summary.num_requests == 9
    assert summary.goodput == pytest.approx(9 / 4)
    assert summary.good == 1.0


def test_refusals_errors_and_answers_are_counted_apart() -> None:
    records = [record(0.1), record(0.1, status=503), record(0.1, status=429), record(0.1, status=500)]
    records += [
        record(4.0, status=0, error=TIMED_OUT),
        record(0.1, status=0, error="ServerDisconnectedError"),
    ]
    summary = summarize(records, solo_s={"encode": 0.1})
    assert (summary.num_ok, summary.num_rejected, summary.num_errors) == (1, 2, 3)
    assert summary.num_good == 1


def test_a_request_that_was_given_up_counts_in_the_percentiles_and_a_refusal_does_not() -> None:
    records = [record(0.1), record(4.0, status=0, error=TIMED_OUT), record(0.001, status=503)]
    summary = summarize(records, solo_s={"encode": 0.1})
    assert summary.p50_s == pytest.approx(2.05)
    assert summary.mean_s == {"encode": pytest.approx(2.05)}


def test_slowdown_is_latency_in_solo_times_of_the_kind() -> None:
    records = [record(0.2, kind="short")] * 2 + [record(2.0, kind="long")] * 98
    summary = summarize(records, solo_s={"short": 0.01, "long": 1.0})
    assert summary.p99_s == pytest.approx(2.0)
    assert summary.p99_slowdown == pytest.approx(20.0)


def test_fairness_is_that_of_the_speed_each_kind_gets() -> None:
    records = [record(0.2, kind="short"), record(2.0, kind="long")]
    fair = summarize(records, solo_s={"short": 0.1, "long": 1.0})
    unfair = summarize(records, solo_s={"short": 0.02, "long": 1.0})
    assert fair.fairness == pytest.approx(1.0)
    assert unfair.fairness == pytest.approx(0.6**2 / (2 * (0.1**2 + 0.5**2)))


@pytest.mark.parametrize(("shares", "index"), [([1, 1, 1], 1.0), ([1, 0, 0, 0], 0.25), ([3, 1], 0.8)])
def test_jain_index(shares: list[float], index: float) -> None:
    assert jain_index(shares) == pytest.approx(index)


def test_no_request_waits_for_the_answer_to_another() -> None:
    async def run() -> list[Record]:
        desk = Desk(expected=5)  # answers nobody before all five have asked
        async with desk.open() as url:
            arrivals = [Arrival(0.01 * i, Call("held", "/held", b"{}")) for i in range(desk.expected)]
            return await run_open_loop(url, arrivals, timeout_s=30.0)

    assert [record.status for record in uvloop.run(run())] == [200] * 5


def test_a_request_is_given_up_at_its_time_limit() -> None:
    async def run() -> list[Record]:
        async with Desk().open() as url:
            return await run_open_loop(url, [Arrival(0.0, Call("held", "/held", b"{}"))], timeout_s=0.05)

    (given_up,) = uvloop.run(run())
    assert given_up.error == TIMED_OUT
    assert not given_up.is_ok
    assert given_up.seconds >= 0.05


def test_refusals_and_closed_ports_are_records_too() -> None:
    async def run() -> tuple[list[Record], list[Record]]:
        async with Desk().open() as url:
            refused = await run_open_loop(url, [Arrival(0.0, Call("full", "/full", b"{}"))], timeout_s=5.0)
        return refused, await run_open_loop(url, [Arrival(0.0, CALL)], timeout_s=5.0)

    (refused,), (unreachable,) = uvloop.run(run())
    assert refused.is_rejected
    assert (unreachable.status, unreachable.error) == (0, "ConnectionRefusedError")


def test_a_closed_loop_asks_every_call_once_and_keeps_its_connections() -> None:
    async def run() -> tuple[list[Record], int]:
        desk = Desk()
        async with desk.open() as url:
            calls = [Call("encode", "/encode", b"%d" % i) for i in range(7)]
            records = await run_closed_loop(url, calls, clients=3, timeout_s=5.0)
            return records, desk.num_connections

    records, num_connections = uvloop.run(run())
    assert [record.status for record in records] == [200] * 7
    assert num_connections == 3


def test_an_answer_holds_the_whole_body() -> None:
    async def run() -> Answer:
        async with Desk().open() as url:
            return await ask(url, Call("encode", "/encode", b"x" * 300_000), timeout_s=5.0)

    assert uvloop.run(run()) == Answer(200, b"x" * 300_000)


def test_a_connection_that_the_server_closed_is_replaced() -> None:
    async def run() -> list[Record]:
        async with Desk().open() as url:
            calls = [Call("last", "/last", b"{}"), CALL, CALL]
            return await run_closed_loop(url, calls, clients=1, timeout_s=5.0)

    assert [record.status for record in uvloop.run(run())] == [200] * 3
