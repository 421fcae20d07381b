"""One HTTP request over a connection of its own, cheap enough to send hundreds a second from one process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import httptools

CHUNK_BYTES = 2**16


class UnreachableError(Exception):
    """Nobody accepted the connection: the request was never sent."""


class LostError(Exception):
    """The connection ended before the answer was complete."""


@dataclass(frozen=True)
class Address:
    host: str
    port: int


@dataclass(frozen=True)
class Call:
    """A request; with `is_chunked` its length is not announced, and the body comes in pieces."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    is_chunked: bool = False

    def pieces(self, address: Address) -> Sequence[bytes]:
        """The bytes that go over the wire."""
        headers = {"Host": f"{address.host}:{address.port}", "Connection": "close", **self.headers}
        if self.is_chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif self.body or self.method == "POST":
            headers["Content-Length"] = str(len(self.body))
        lines = [
            f"{self.method} {self.path} HTTP/1.1",
            *(f"{name}: {text}" for name, text in headers.items()),
        ]
        head = "\r\n".join([*lines, "", ""]).encode()
        if not self.is_chunked:
            return [head + self.body]
        parts = [self.body[i : i + CHUNK_BYTES] for i in range(0, len(self.body), CHUNK_BYTES)]
        return [head, *(b"%x\r\n%b\r\n" % (len(part), part) for part in parts), b"0\r\n\r\n"]


@dataclass(frozen=True)
class Reply:
    """A complete answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def send(address: Address, call: Call) -> Reply:
    """The answer to a call. Raises UnreachableError or LostError; being cancelled closes the connection."""
    async with _connection(address) as (reader, writer):
        parser = _ReplyParser()
        receiving = asyncio.ensure_future(_receive(reader, parser))
        sending = asyncio.ensure_future(_write(writer, call.pieces(address)))
        try:  # both at once, as a server may answer before it has read everything
            return await receiving
        finally:
            sending.cancel()
            receiving.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)


@contextlib.asynccontextmanager
async def _connection(address: Address) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    try:
        reader, writer = await asyncio.open_connection(address.host, address.port)
    except OSError as error:
        raise UnreachableError(str(error)) from error
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _write(writer: asyncio.StreamWriter, pieces: Sequence[bytes]) -> None:
    with contextlib.suppress(OSError):  # whether there is an answer all the same is seen by reading
        for piece in pieces:
            writer.write(piece)
            await writer.drain()


async def _receive(reader: asyncio.StreamReader, parser: _ReplyParser) -> Reply:
    try:
        while not parser.is_complete:
            data = await reader.read(CHUNK_BYTES)
            if not data:
                raise LostError("the connection was closed without a complete answer")
            parser.feed(data)
    except (OSError, httptools.HttpParserError) as error:
        raise LostError(f"{type(error).__name__}: {error}") from error
    return parser.reply()


class _ReplyParser:
    """Collects what httptools finds in the bytes of one answer."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self.is_complete = False

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def reply(self) -> Reply:
        return Reply(self._parser.get_status_code(), self._headers, bytes(self._body))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        self.is_complete = True
