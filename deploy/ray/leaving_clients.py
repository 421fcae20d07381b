"""Clients that leave, as Ray Serve tells of them and as ASGI does."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATIENCE_S = 5.0
"""How long the application may take to notice that its client has left."""


class LeavingClients:
    """Tells the application of a client that left by `http.disconnect`.

    Ray cancels the task of such a request. To the application a cancelled task means that its server goes
    down, and it would count the request so.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_left = asyncio.Event()

        async def receive_or_hear() -> Message:
            message = asyncio.ensure_future(receive())
            leaving = asyncio.ensure_future(has_left.wait())
            try:
                await asyncio.wait({message, leaving}, return_when=asyncio.FIRST_COMPLETED)
                return message.result() if message.done() else {"type": "http.disconnect"}
            finally:
                message.cancel()
                leaving.cancel()

        answering = asyncio.ensure_future(self._app(scope, receive_or_hear, send))
        try:
            await asyncio.shield(answering)
        except asyncio.CancelledError:
            has_left.set()
            try:
                await asyncio.wait({answering}, timeout=PATIENCE_S)
            finally:
                answering.cancel()
            raise
