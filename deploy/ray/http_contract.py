"""What Ray Serve's HTTP proxy answers on its own, in the words of the service.

The proxy runs `middlewares` around everything where RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names it.
"""

from __future__ import annotations

import logging

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.middleware.protocol_errors import ProtocolErrors
from service.middleware.request_id import id_for
from service.problems import problem

log = logging.getLogger(__name__)

RAYS_OWN = "/-/"
"""Paths below it are the proxy's: /-/healthz and /-/routes."""
HINTS = ("x-request-timeout-seconds", "x-request-disconnect-disabled")
"""Headers by which Ray would let a client go on computing after it left, or be timed by the proxy."""
STATUSES = {404: 503, 408: 504}
"""Ray's own statuses that mean another one here. Every path is the application's, so one that Ray does not
find means that there is no application, or not yet."""
MAX_DETAIL = 500


def middlewares() -> list[Middleware]:
    """For Ray's proxy, from the inside out."""
    return [Middleware(HttpContract), Middleware(ProtocolErrors)]


class HttpContract:
    """Keeps the service's HTTP contract where Ray answers, or does not.

    One X-Request-ID in every answer, where Ray adds a second; problem details with Retry-After in place of
    Ray's plain text; a 503 to be tried again where the replica of a request died, which Ray leaves to the web
    server as a bare 500, and an `error` event where it died over a stream. /metrics is refused: it would be
    some replica's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(RAYS_OWN):
            await self._app(scope, receive, send)
            return
        name = id_for(scope)
        headers = MutableHeaders(scope=scope)  # after all reading, which puts a copy into the scope
        headers["X-Request-ID"] = name
        for hint in HINTS:
            del headers[hint]
        answer = _Answer(send, name)
        if scope["path"] == "/metrics":
            refusal = problem(404, "each replica is scraped by its own address: see /metrics/targets")
            await refusal(scope, receive, answer.send)
            return
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            log.exception("the proxy failed")
        await answer.end(scope, receive)


class _Answer:
    """One response on its way out."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self._is_started = False
        self._is_complete = False
        self._is_stream = False
        self._refusal: Message | None = None
        self._refusal_text = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._request_id
            media_type = headers.get("content-type", "")
            if message["status"] >= 400 and media_type.startswith("text/plain"):
                self._refusal = message
                return
            self._is_started = True
            self._is_stream = media_type.startswith("text/event-stream")
        elif message["type"] == "http.response.body":
            if self._refusal is not None:
                self._refusal_text += message.get("body", b"")
                return
            self._is_complete = not message.get("more_body", False)
        await self._send(message)

    async def end(self, scope: Scope, receive: Receive) -> None:
        """Ray has no more to say. Nobody hears this where it is the client that left."""
        if self._refusal is not None:
            text = self._refusal_text.decode(errors="replace").strip()[:MAX_DETAIL]
            await self._refuse(_refusal(self._refusal, text), scope, receive)
        elif not self._is_started:
            died = problem(503, "the replica went away before the request was done: send it again")
            await self._refuse(died, scope, receive)
        elif self._is_stream and not self._is_complete:
            died = problem(503, "the replica went away before the request was done: send it again")
            event = b"event: error\ndata: " + bytes(died.body) + b"\n\n"
            await self._send({"type": "http.response.body", "body": event})

    async def _refuse(self, response: Response, scope: Scope, receive: Receive) -> None:
        response.headers["X-Request-ID"] = self._request_id
        await response(scope, receive, self._send)


def _refusal(message: Message, text: str) -> Response:
    """Problem details for an error of Ray's own; Retry-After as Ray has it where it has one."""
    status: int = message["status"]
    response = problem(STATUSES.get(status, status), text)
    retry_after = MutableHeaders(scope=message).get("retry-after")
    if retry_after is not None:
        response.headers["Retry-After"] = retry_after
    return response
