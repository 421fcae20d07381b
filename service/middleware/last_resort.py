"""An answer where nothing below gave one."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import problem

log = logging.getLogger(__name__)


class LastResort:
    """Turns an exception that nothing below turned into a response into a 500; its trace is for the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception:
            if started:
                raise
            log.exception("the request failed")
            await problem(500, "the server failed to answer; see its log")(scope, receive, watched_send)
