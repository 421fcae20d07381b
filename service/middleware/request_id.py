"""An id for every request."""

from __future__ import annotations

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.logs import request_id

_ACCEPTED = re.compile(r"[\x21-\x7e]{1,128}")


class RequestId:
    """Answers with the caller's X-Request-ID, or one of ours, and puts it into every log line."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = id_for(scope)
        # Not reset afterwards: every request runs in a task of its own, and what the server below logs
        # about it still carries its id.
        request_id.set(name)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = name
            await send(message)

        await self._app(scope, receive, send_with_id)


def id_for(scope: Scope) -> str:
    """The caller's X-Request-ID where it is one that can be answered with, else a new one."""
    sent = Headers(scope=scope).get("x-request-id", "")
    return sent if _ACCEPTED.fullmatch(sent) else uuid.uuid4().hex
