"""What both clients do with a call, a response and its events; they differ in how they wait only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import httpx

from service.client.calls import Call
from service.client.errors import AnswerError, PatronusError, UnreachableError, error_from
from service.client.events import EventParser, Progress
from service.client.retrying import Attempts

T = TypeVar("T")

EVENTS = "text/event-stream"
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=64)
"""As many connections as calls run at once: it is the service that says when there are too many."""
GRACE_S = 2.0
"""How much later than the service's deadline an answer may come, so that it is its 504 that is heard."""


def base_url(url: str) -> httpx.URL:
    """The service's address. Raises ValueError for what is none."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is no address: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        raise ValueError(f"{url!r} is no address of a service, such as http://127.0.0.1:8000")
    return parsed


def base_headers(api_key: str | None) -> dict[str, str]:
    """Raises ValueError for a key that no header can hold, such as one with the line end of its file.

    The value is in no message: it is a secret.
    """
    if api_key is None:
        return {}
    if not (api_key.isascii() and api_key.isprintable() and api_key == api_key.strip()):
        raise ValueError("the API key must be printable ASCII, without spaces or line ends around it")
    return {"X-API-Key": api_key}


def arguments_of(call: Call[Any], attempts: Attempts, *, accept: str | None = None) -> dict[str, Any]:
    """What httpx is given for the next attempt. Raises DeadlineError where there is no time for one."""
    left_s = attempts.seconds_left()
    arguments = call.request(accept=accept)
    # Rounded up: the header takes no 0, and a number such as 1e-07 is of no use to anybody.
    arguments["headers"]["X-Request-Timeout"] = f"{math.ceil(left_s * 1000) / 1000:.3f}"
    arguments["timeout"] = left_s + GRACE_S
    return arguments


def read_answer(call: Call[T], response: httpx.Response, body: bytes) -> T:
    """The result in a response. Raises ApiError or AnswerError."""
    if response.has_redirect_location:
        raise AnswerError(f"{call.path} redirects to {response.headers['location']}: is that its address?")
    if response.status_code not in call.read_statuses:
        raise error_from(response.status_code, response.headers, body)
    return call.read(body)


def unreachable(error: httpx.HTTPError) -> PatronusError:
    return UnreachableError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


class EventReader(Generic[T]):
    """Progress, and at last the result, from the bytes of a streamed answer."""

    def __init__(self, call: Call[T], response: httpx.Response) -> None:
        self._call = call
        self._response = response
        self._parser = EventParser()
        self.is_over = False

    @property
    def is_stream(self) -> bool:
        """Whether it is one at all: what was refused at once, or an older service, answers plainly."""
        return str(self._response.headers.get("content-type", "")).startswith(EVENTS)

    def feed(self, chunk: bytes) -> Iterator[Progress | T]:
        """What `chunk` completes. Raises ApiError for an `error` event."""
        for event in self._parser.feed(chunk):
            if event.name == "progress":
                yield event.progress()
            elif event.name == "result":
                self.is_over = True
                yield self._call.read(event.data)
            elif event.name == "error":
                raise error_from(200, self._response.headers, event.data)
            else:
                raise AnswerError(f"there is no event {event.name!r:.60}")
