"""The whole service within this process: httpx asks the application itself, without a port."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Message, Scope


@contextmanager
def in_process(app: FastAPI) -> Iterator[httpx.BaseTransport]:
    """A transport to `app`, which runs in a thread of its own meanwhile. Raises what its start raises."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="service", daemon=True)
    thread.start()
    lifespan = app.router.lifespan_context(app)
    try:
        asyncio.run_coroutine_threadsafe(lifespan.__aenter__(), loop).result()
        try:
            yield _InProcess(app, loop)
        finally:
            asyncio.run_coroutine_threadsafe(lifespan.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _InProcess(httpx.BaseTransport):
    def __init__(self, app: FastAPI, loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._loop = loop

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _Exchange(request.read())
        work = exchange.run(self._app, _scope(request))
        running = None
        try:
            running = asyncio.run_coroutine_threadsafe(work, self._loop)
            status, headers = exchange.started.result()
        except BaseException:  # Ctrl-C: the work that nobody waits for any more would hold up the end
            self._loop.call_soon_threadsafe(exchange.left.set)
            if running is not None:
                running.exception()
            raise
        return httpx.Response(status, headers=headers, stream=_Body(exchange, running, self._loop))


@dataclass(eq=False)
class _Exchange:
    """One request, between the thread that asks and the loop that answers."""

    body: bytes
    started: Future[tuple[int, list[tuple[bytes, bytes]]]] = field(default_factory=Future)
    chunks: queue.SimpleQueue[bytes | None] = field(default_factory=queue.SimpleQueue)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    is_sent: bool = False

    async def run(self, app: FastAPI, scope: Scope) -> None:
        try:
            await app(scope, self.receive, self.send)
        except BaseException as error:
            if self.started.done():
                raise
            self.started.set_exception(error)
        finally:
            self.chunks.put(None)

    async def receive(self) -> Message:
        if not self.is_sent:
            self.is_sent = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started.set_result((message["status"], message["headers"]))
        elif message.get("body"):
            self.chunks.put(message["body"])


class _Body(httpx.SyncByteStream):
    def __init__(self, exchange: _Exchange, running: Future[None], loop: asyncio.AbstractEventLoop) -> None:
        self._exchange = exchange
        self._running = running
        self._loop = loop

    def __iter__(self) -> Iterator[bytes]:
        while (chunk := self._exchange.chunks.get()) is not None:
            yield chunk
        self._running.result()

    def close(self) -> None:
        """Leave, as a client whose connection closes; the work is over when this returns."""
        self._loop.call_soon_threadsafe(self._exchange.left.set)
        self._running.exception()


def _scope(request: httpx.Request) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": request.url.raw_path.split(b"?")[0],
        "query_string": request.url.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "server": (request.url.host, request.url.port),
        "client": ("127.0.0.1", 0),
    }
