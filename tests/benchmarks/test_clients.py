"""The clients of the faults, against servers that behave and servers that do not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from benchmarks.faults.calls import Address, Call, Reply, UnreachableError, send
from benchmarks.faults.clients import Request, ask, open_loop, together
from benchmarks.faults.outcomes import Expected, Outcome
from benchmarks.faults.tcp_proxy import tcp_proxy

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
RIGHT = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright"


@asynccontextmanager
async def server(behaviour: Behaviour) -> AsyncIterator[Address]:
    """Does `behaviour` for every connection, once the request's head has come."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await behaviour(reader, writer)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Address("127.0.0.1", listening.sockets[0].getsockname()[1])
    finally:
        listening.close()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(RIGHT)
    await writer.drain()


async def answer_half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(RIGHT[:-2])
    await writer.drain()


async def answer_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def is_right(reply: Reply) -> str | None:
    return None if reply.body == b"right" else "another answer"


def request(leaves_after_s: float | None = None) -> Request:
    return Request(Call("GET", "/"), Expected(is_right), leaves_after_s, kind="get")


@pytest.mark.parametrize(
    ("behaviour", "leaves_after_s", "outcome"),
    [
        (answer, None, Outcome.OK),
        (answer, 25.0, Outcome.OK),
        (answer_half, None, Outcome.LOST),
        (answer_nothing, 0.05, Outcome.LEFT),
    ],
)
def test_client_says_how_its_request_ended(
    behaviour: Behaviour, leaves_after_s: float | None, outcome: Outcome
) -> None:
    async def scene() -> None:
        async with server(behaviour) as address:
            record = await ask(address, request(leaves_after_s))
            assert record.outcome is outcome, record.detail
            assert record.kind == "get"

    asyncio.run(scene())


def test_port_that_nobody_listens_on_is_unreachable() -> None:
    async def scene() -> None:
        async with server(answer) as address:
            pass
        assert (await ask(address, request())).outcome is Outcome.UNREACHABLE

    asyncio.run(scene())


def test_body_that_comes_in_pieces_ends_with_an_empty_one() -> None:
    pieces = Call("POST", "/", b"x" * 70_000, is_chunked=True).pieces(Address("127.0.0.1", 1))
    assert pieces[-1] == b"0\r\n\r\n"
    assert b"Content-Length" not in pieces[0]
    assert sum(piece.count(b"x") for piece in pieces[1:]) == 70_000


def test_answer_that_comes_before_the_body_is_read_is_received() -> None:
    async def scene() -> None:
        async with server(answer) as address:
            assert (await send(address, Call("POST", "/", bytes(2**24)))).body == b"right"

    asyncio.run(scene())


def test_open_loop_sends_about_as_many_as_asked_for() -> None:
    async def scene() -> None:
        async with server(answer) as address:
            rng = np.random.default_rng(0)
            records = await open_loop(address, request, per_s=1000.0, seconds=0.2, rng=rng)
            assert 130 <= len(records) <= 270  # 200 expected, 5 standard deviations
            assert {record.outcome for record in records} == {Outcome.OK}

    asyncio.run(scene())


def test_proxy_carries_both_ways_until_it_is_told_to_speak_rubbish() -> None:
    async def scene() -> None:
        async with server(answer) as address, tcp_proxy(address.port) as proxy:
            near = Address("127.0.0.1", proxy.port)
            assert (await send(near, Call("GET", "/"))).body == b"right"
            proxy.rubbish = b"rubbish"
            assert [record.outcome for record in await together(near, [request()])] == [Outcome.LOST]

    asyncio.run(scene())


def test_proxy_to_nowhere_ends_the_connection() -> None:
    async def scene() -> None:
        async with server(answer) as address:
            pass
        async with tcp_proxy(address.port) as proxy:
            assert (await ask(Address("127.0.0.1", proxy.port), request())).outcome is Outcome.LOST
        with pytest.raises(UnreachableError):
            await send(Address("127.0.0.1", proxy.port), Call("GET", "/"))

    asyncio.run(scene())
