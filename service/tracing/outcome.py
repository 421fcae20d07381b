"""How a span says that its work did not come to its end."""

from __future__ import annotations

import asyncio

from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Span, Status, StatusCode

from service.engine.errors import EngineError, JobCancelledError

CANCELLED = "patronus.cancelled"


def mark(span: Span, error: BaseException | None) -> None:
    """Say why the work of a span ended; whoever left is no fault of the work.

    The text of an error is told only where the engine wrote it: others may quote what a client sent.
    """
    if isinstance(error, asyncio.CancelledError | JobCancelledError):
        span.set_attribute(CANCELLED, True)
    elif error is not None:
        span.set_attribute(ERROR_TYPE, type(error).__qualname__)
        span.set_status(Status(StatusCode.ERROR, str(error) if isinstance(error, EngineError) else None))
