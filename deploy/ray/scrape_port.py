"""A port of its own for each replica, where it is scraped and probed past Ray's proxy."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.middleware import OPEN_PATHS
from service.problems import problem


class ScrapePortError(Exception):
    """No port of the range is free."""


@asynccontextmanager
async def scrape_port(app: ASGIApp, host: str, ports: Sequence[int]) -> AsyncIterator[str]:
    """Serve the open paths of `app` on the first free port of `ports`; gives HOST:PORT.

    On the event loop of the application: where that is stuck, the scrape fails, and so it should. Raises
    ScrapePortError.
    """
    listener = _listen(host, ports)
    config = uvicorn.Config(
        OpenPaths(app), http=_Protocol, lifespan="off", log_config=None, server_header=False
    )
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        yield f"{host}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


class OpenPaths:
    """Health, readiness and metrics, and nothing else: this port asks nobody for a key."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            await problem(404, f"here are {', '.join(sorted(OPEN_PATHS))} only")(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class _Server(uvicorn.Server):
    """Leaves signals to Ray."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Protocol(HttpToolsProtocol):
    """Writes no access log. uvicorn's own `access_log` would silence that logger for the whole process."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.access_log = False


def _listen(host: str, ports: Sequence[int]) -> socket.socket:
    for port in ports:
        try:
            return socket.create_server((host, port))
        except OSError:
            continue
    raise ScrapePortError(f"no port of {ports[0]} to {ports[-1]} is free on {host}")
