"""As little of an HTTP/1.1 client as a load needs: POST over connections that are kept."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import cast
from urllib.parse import urlsplit

import httptools


@dataclass(frozen=True)
class Call:
    """One POST request: which kind of work it is, where it goes, and its body."""

    kind: str
    path: str
    body: bytes
    content_type: str = "application/json"


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes


class Connections:
    """Connections to one server; a context manager that closes them.

    `send` takes an idle connection or opens one. A caller that is cancelled closes its own, which is how
    the server hears of it.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._address = parts.hostname, parts.port
        self._host = parts.netloc.encode("ascii")
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()

    async def send(self, call: Call) -> Answer:
        """Raises OSError where the connection fails or ends before the answer does."""
        request = b"".join(
            (
                b"POST ",
                call.path.encode("ascii"),
                b" HTTP/1.1\r\nHost: ",
                self._host,
                b"\r\nAccept: application/json\r\nContent-Type: ",
                call.content_type.encode("ascii"),
                b"\r\nContent-Length: %d\r\n\r\n" % len(call.body),
                call.body,
            )
        )
        while self._idle:
            try:
                return await self._over(self._idle.pop(), request)
            except _StaleConnectionError:
                continue  # the server had closed it before the request came
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, *self._address)
        self._all.add(connection)
        return await self._over(connection, request)

    async def _over(self, connection: _Connection, request: bytes) -> Answer:
        try:
            answer = await connection.send(request)
        except BaseException:
            connection.close()
            self._all.discard(connection)
            raise
        if connection.is_reusable:
            self._idle.append(connection)
        else:
            connection.close()
            self._all.discard(connection)
        return answer

    def __enter__(self) -> Connections:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for connection in self._all:
            connection.close()


class _StaleConnectionError(ConnectionError):
    """A kept connection ended before any of an answer came."""


class _Connection(asyncio.Protocol):
    """One request at a time; the methods named on_… are the parser's callbacks."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._num_answers = 0
        self._has_begun = False
        self._is_kept = False

    @property
    def is_reusable(self) -> bool:
        return self._transport is not None and self._is_kept

    async def send(self, request: bytes) -> Answer:
        self._answer = asyncio.get_running_loop().create_future()
        self._has_begun = False
        if self._transport is None:
            raise _StaleConnectionError
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's only behaves like one

    def data_received(self, data: bytes) -> None:
        self._has_begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"not HTTP: {error}"))
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        is_stale = self._num_answers > 0 and not self._has_begun
        self._fail(
            _StaleConnectionError() if is_stale else ConnectionResetError("the connection ended early")
        )

    def on_body(self, part: bytes) -> None:
        self._body.append(part)

    def on_message_complete(self) -> None:
        answer = Answer(self._parser.get_status_code(), b"".join(self._body))
        self._body.clear()
        self._num_answers += 1
        self._is_kept = bool(self._parser.should_keep_alive())
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
