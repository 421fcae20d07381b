"""What holds for every request: an id, a key where keys are set, a bounded body. Pure ASGI, so that a
client's leaving still reaches the handler."""

from __future__ import annotations

import hmac
import logging
import re
import uuid
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import ProblemError, problem, problem_from

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class RequestId:
    """Answers with the caller's X-Request-ID, or one of ours.

    The outermost layer: an exception that nothing below turned into a response becomes a 500 here.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get("x-request-id", "")
        request_id = sent if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("request %s failed", request_id)
            if started:
                raise
            await problem(500, "the server failed to answer; see its log")(scope, receive, send_with_id)


class ApiKeys:
    """Requires one of `keys` as a bearer token or X-API-Key, except on health, readiness and metrics."""

    def __init__(self, app: ASGIApp, *, keys: Sequence[str]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._keys and scope["path"] not in OPEN_PATHS:
            headers = Headers(scope=scope)
            scheme, _, token = headers.get("authorization", "").partition(" ")
            given = token if scheme.lower() == "bearer" else headers.get("x-api-key", "")
            # Every key is compared, so that the time taken says nothing about which one was close.
            matches = [hmac.compare_digest(given.encode(), key) for key in self._keys]
            if not any(matches):
                await problem(401, "send a valid API key as X-API-Key or Authorization: Bearer")(
                    scope, receive, send
                )
                return
        await self._app(scope, receive, send)


class BodyLimit:
    """Refuses bodies over `max_bytes` with 413, by their announced length or as soon as too much came."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = ProblemError(413, f"the request body is larger than {self._max_bytes} bytes")
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            await problem_from(refusal)(scope, receive, send)
            return
        received = 0

        async def bounded_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise refusal  # inside the route, which answers with it
            return message

        await self._app(scope, bounded_receive, send)
