"""Who asks: a key where keys are set, and the name under which a client is limited and logged."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.middleware import is_open
from service.problems import problem

FINGERPRINT_DIGITS = 8


class ApiKeys:
    """Requires one of `keys` as a bearer token or X-API-Key, except on open paths (`is_open`).

    Names the client in `scope["state"]["client"]`: by its key's fingerprint, or without a valid key
    by its address. The key itself goes nowhere. `refused` hears of every 401, as `key`.
    """

    def __init__(
        self, app: ASGIApp, *, keys: Sequence[str], refused: Callable[[str], None] = lambda reason: None
    ) -> None:
        self._app = app
        self._refused = refused
        self._keys = [(_digest(key), f"key:{fingerprint(key)}") for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["client"] = address_of(scope)
        if self._keys and not is_open(scope["path"]):
            known = self._holder(_given(Headers(scope=scope)))
            if known is None:
                self._refused("key")
                await problem(401, "send a valid API key as X-API-Key or Authorization: Bearer")(
                    scope, receive, send
                )
                return
            state["client"] = known
        await self._app(scope, receive, send)

    def _holder(self, given: str) -> str | None:
        """The client whose key it is, or None.

        Digests are compared, and all of them always, so that the time taken tells neither a key's length
        nor which one was close.
        """
        digest = _digest(given)
        holder = None
        for known, client in self._keys:
            if hmac.compare_digest(digest, known):
                holder = client
        return holder


def fingerprint(key: str) -> str:
    """The first digits of the key's sha256: enough to tell clients apart, useless as a key."""
    return _digest(key).hex()[:FINGERPRINT_DIGITS]


def address_of(scope: Scope) -> str:
    """`address:…` of a client without a key; for IPv6 its /64 network, all of which one client holds."""
    host = (scope.get("client") or ("unknown", 0))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a Unix socket, say
        return f"address:{host}"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return f"address:{address.ipv4_mapped}"
        return f"address:{ipaddress.ip_network((int(address), 64), strict=False)}"
    return f"address:{address}"


def _given(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
