"""A bound on what a client may send, and on what all of them have sent."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import ProblemError, problem_from


class BodyLimit:
    """Refuses bodies over `max_bytes` with 413, by their announced length or as soon as too much came.

    What a body would bring over `max_total_bytes` of all running requests is refused with 503.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_total_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_total_bytes = max_total_bytes
        self._total_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        refusal = self._refusal(int(announced), int(announced)) if announced.isdecimal() else None
        if refusal is not None:
            await problem_from(refusal)(scope, receive, send)
            return
        received = 0

        async def bounded_receive() -> Message:
            nonlocal received
            message = await receive()
            more = len(message.get("body", b""))
            refusal = self._refusal(received + more, more)
            if refusal is not None:
                raise refusal  # inside the route, which answers with it
            received += more
            self._total_bytes += more
            return message

        try:
            await self._app(scope, bounded_receive, send)
        finally:
            self._total_bytes -= received

    def _refusal(self, num_bytes: int, num_new: int) -> ProblemError | None:
        """Why a request may not have that many bytes, `num_new` of them not counted yet; None if it may."""
        if num_bytes > self._max_bytes:
            return ProblemError(413, f"the request body is larger than {self._max_bytes} bytes")
        if self._total_bytes + num_new > self._max_total_bytes:
            return ProblemError(503, "the bodies of the running requests leave no room for this one")
        return None
