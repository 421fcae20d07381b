"""One log line for each request, when it is over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.middleware import CLIENT_CLOSED_REQUEST, OPEN_PATHS
from service.problems import finished_reason

log = logging.getLogger("service.access")

MAX_PATH = 200


class AccessLog:
    """Logs method, path, status, duration, client, bytes in and out, and how the request ended.

    Neither bodies nor query strings. The client is its key's fingerprint or its address (`ApiKeys`);
    `finished_reason` is what a route put into `scope["state"]`, else what the status says. Probes and
    scrapes that went well are lines of level DEBUG.
    """

    def __init__(self, app: ASGIApp, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        started = self._clock()
        status: int | None = None
        bytes_in = bytes_out = 0
        is_complete = False

        async def counted_receive() -> Message:
            nonlocal bytes_in
            message = await receive()
            bytes_in += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status, bytes_out, is_complete
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            bytes_out += len(message.get("body", b""))
            is_complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self._app(scope, counted_receive, counted_send)
        finally:
            path = scope["path"][:MAX_PATH]
            reason = state.setdefault("finished_reason", _reason(status, is_complete))
            is_routine = scope["path"] in OPEN_PATHS and status == 200
            fields = {
                "method": scope["method"],
                "path": path,
                "status": status,
                "duration_s": round(self._clock() - started, 6),
                "client": state.get("client"),
                "bytes_in": bytes_in,
                "bytes_out": bytes_out,
                "finished_reason": reason,
            }
            log.log(logging.DEBUG if is_routine else logging.INFO, "request", extra={"fields": fields})


def _reason(status: int | None, is_complete: bool) -> str:
    if status == CLIENT_CLOSED_REQUEST:
        return "disconnected"
    if status is None or not is_complete:
        return "cancelled"
    return finished_reason(status)
