"""What a call may raise, and which HTTP status becomes which of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any


class PatronusError(Exception):
    """Anything for which a call has no result."""


class UnreachableError(PatronusError):
    """No connection to the service, or it broke before the answer was complete."""


class DeadlineError(PatronusError):
    """The call's time was over: here, or by the service's word (504)."""


class AnswerError(PatronusError):
    """The answer is not what this client can read: another kind of server, or another version of it."""


class ApiError(PatronusError):
    """The service refused or failed, and says why (RFC 9457 problem details).

    status: of HTTP; retry_after_s: when it wants to be asked again, None where it does not say; request_id:
    under which its log speaks of the request.
    """

    def __init__(
        self, status: int, title: str, detail: str, *, retry_after_s: float | None, request_id: str | None
    ) -> None:
        super().__init__(f"{status} {title}: {detail}" if detail else f"{status} {title}")
        self.status = status
        self.title = title
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.request_id = request_id


class BadRequestError(ApiError):
    """The request cannot be answered as it is (400, 413, 415, 422)."""


class AuthenticationError(ApiError):
    """The API key is missing or wrong (401)."""


class NotFoundError(ApiError):
    """There is no such model, prototype or image_id (404)."""


class OverloadedError(ApiError):
    """Over a limit of ours (429), or the service is full or going down (503): worth another try."""


class TimedOutError(ApiError, DeadlineError):
    """The service says that the request took, or would take, longer than it may (504)."""


class ServerError(ApiError):
    """A fault of the service (500 and above)."""


KINDS: dict[int, type[ApiError]] = {
    401: AuthenticationError,
    404: NotFoundError,
    429: OverloadedError,
    503: OverloadedError,
    504: TimedOutError,
}


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """The error that a response stands for, whoever answered: a proxy does not write problem details.

    An `error` event comes in a response of status 200; its own status is in its problem details.
    """
    problem = _problem(body)
    if status < 400:
        status = problem["status"] if isinstance(problem.get("status"), int) else 500
    kind = KINDS.get(status) or (ServerError if status >= 500 else BadRequestError)
    return kind(
        status,
        str(problem.get("title") or _phrase(status)),
        str(problem.get("detail") or ""),
        retry_after_s=_seconds(headers.get("retry-after")),
        request_id=headers.get("x-request-id"),
    )


def _problem(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "unknown status"


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After as seconds from now; it is a number or a date (RFC 9110, section 10.2.3)."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
