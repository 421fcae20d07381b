"""Every error and its HTTP status, and the one shape of an error response (RFC 9457)."""

from __future__ import annotations

import json
from http import HTTPStatus

from starlette.responses import Response

from service.budget import BudgetExceededError, BudgetTooSmallError
from service.engine.errors import (
    DeadlineExceededError,
    EngineStoppedError,
    JobCancelledError,
    JobTooLargeError,
    NonFiniteOutputError,
    OutOfMemoryError,
    QueueFullError,
    StepFailedError,
)
from service.images import ImageError, ImageTooLargeError
from service.pipeline.errors import (
    NamesFileError,
    NameTakenError,
    PipelineError,
    UnknownAttributeError,
    UnknownImageError,
    UnknownModelError,
    UnknownPrototypeError,
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1


class ProblemError(Exception):
    """A fault of the HTTP request itself, with the status it gets."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


STATUSES: tuple[tuple[type[Exception], int], ...] = (  # the first match counts
    (ImageTooLargeError, 413),
    (ImageError, 422),
    (UnknownModelError, 404),
    (UnknownPrototypeError, 404),
    (UnknownAttributeError, 404),
    (UnknownImageError, 404),
    (NameTakenError, 409),
    (PipelineError, 422),
    (JobTooLargeError, 422),
    (NonFiniteOutputError, 422),
    (BudgetTooSmallError, 422),
    (BudgetExceededError, 429),
    (NamesFileError, 503),
    (QueueFullError, 503),
    (EngineStoppedError, 503),
    (JobCancelledError, 503),
    (OutOfMemoryError, 503),
    (DeadlineExceededError, 504),
    (TimeoutError, 504),
    (StepFailedError, 500),
)


def status_of(error: Exception) -> int:
    if isinstance(error, ProblemError):
        return error.status
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def finished_reason(status: int, error: Exception | None = None) -> str:
    """The `finished_reason` label of a request that ended with this status, because of this error."""
    if status < 400:
        return "ok"
    if isinstance(error, OutOfMemoryError):
        return "oom"
    return {500: "error", 504: "deadline"}.get(status, "rejected")


def rejection(status: int, error: Exception | None = None) -> str:
    """Why a request was `rejected`, as operators tell such requests apart."""
    if isinstance(error, QueueFullError):
        return "queue_full"
    reasons = {404: "not_found", 413: "too_large", 429: "budget", 503: "unavailable"}
    return reasons.get(status, "invalid")


def problem_from(error: Exception) -> Response:
    """The response to an error; for faults of ours it says no more than that."""
    status = status_of(error)
    detail = str(error) or "the request took longer than allowed"
    return problem(status, detail if status != 500 else "the server failed to answer; see its log")


def problem(status: int, detail: str) -> Response:
    """A problem+json response. Escaped to ASCII: a detail may quote text that is no valid Unicode."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(json.dumps(body), status, headers, MEDIA_TYPE)
