"""What one client may ask for: requests in a time, and row-steps at once."""

from __future__ import annotations

import math
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from service.budget import Budget
from service.middleware import is_open
from service.problems import problem
from service.rate_limit import RateLimiter


class ClientLimits:
    """Refuses a client over its rate with 429, and gives the others their share of the row-step budget.

    A route that knows what its request costs says so: `request.state.row_steps.take(row_steps)`. It is
    given back when the request is over, streamed answers included, however it ended. Stands inside
    `ApiKeys`, which names the client. `refused` hears of every refusal for the rate, as `rate`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limiter: RateLimiter | None,
        budget: Budget,
        refused: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._app = app
        self._refused = refused
        self._limiter = limiter
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        client = scope["state"]["client"]
        wait_s = 0.0 if self._limiter is None else self._limiter.take(client)
        if self._limiter is not None and wait_s > 0:
            self._refused("rate")
            retry_after_s = max(1, math.ceil(wait_s))
            response = problem(
                429,
                f"over the {self._limiter.rate} that a client may send: retry in {retry_after_s} s",
            )
            response.headers["Retry-After"] = str(retry_after_s)
            await response(scope, receive, send)
            return
        with self._budget.share(client) as share:
            scope["state"]["row_steps"] = share
            await self._app(scope, receive, send)
