"""No new requests while the service shuts down."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from service.drain import Drain
from service.middleware import OPEN_PATHS
from service.problems import problem


class DrainGate:
    """Refuses requests with 503 and Retry-After once `drain` has started; probes and scrapes go on.

    `refused` hears of each, as `draining`.
    """

    def __init__(
        self, app: ASGIApp, *, drain: Drain, refused: Callable[[str], None] = lambda reason: None
    ) -> None:
        self._app = app
        self._drain = drain
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
        elif self._drain.has_started:
            self._refused("draining")
            await problem(503, "the service is shutting down: send the request again")(scope, receive, send)
        else:
            with self._drain.running():
                await self._app(scope, receive, send)
