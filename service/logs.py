"""The log: one line for each event, JSON for machines or text for people, with the request's id."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

LogFormat = Literal["auto", "json", "text"]

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is being handled; set by `service.middleware.request_id`."""

trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)
"""Of the same request in whatever traces it, 32 hexadecimal digits; None where tracing is off."""

QUIET = {
    "PIL": logging.INFO,
    "python_multipart": logging.INFO,
    "httpcore2": logging.WARNING,
    "httpx2": logging.WARNING,
}
"""From which level on libraries are heard that tell what is in an image or a body, or which addresses a hub
has signed for a download."""


def set_up_logs(level: str, log_format: LogFormat = "auto", stream: TextIO | None = None) -> None:
    """Have every logger of the process write to `stream` (stderr), the web server's and warnings too.

    auto is text on a terminal, and JSON elsewhere.
    """
    stream = stream or sys.stderr
    as_json = log_format == "json" or (log_format == "auto" and not stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, lowest in QUIET.items():
        logging.getLogger(name).setLevel(max(lowest, root.level))
    logging.captureWarnings(True)


class JsonFormatter(logging.Formatter):
    """An object a line: timestamp (UTC), level, logger, message, and where there are any request_id,
    trace_id, the event's own `fields` (`log.info(…, extra={"fields": {…}})`) and exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "timestamp": timestamp(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (current := request_id.get()) is not None:
            line["request_id"] = current
        if (traced := trace_id.get()) is not None:
            line["trace_id"] = traced
        line.update(fields_of(record))
        if (trace := _trace(self, record)) is not None:
            line["exception"] = trace
        return json.dumps(line, default=str)  # ASCII: a path may hold what is no valid Unicode


class TextFormatter(logging.Formatter):
    """`time level logger [request_id] message name=value …`, and the traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        current = request_id.get()
        parts = [timestamp(record), record.levelname, record.name]
        parts += [f"[{current}]"] if current is not None else []
        parts.append(record.getMessage())
        parts += [f"{name}={json.dumps(value, default=str)}" for name, value in fields_of(record).items()]
        if (traced := trace_id.get()) is not None:
            parts.append(f"trace_id={traced}")
        trace = _trace(self, record)
        return " ".join(parts) + (f"\n{trace}" if trace is not None else "")


def timestamp(record: logging.LogRecord) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    return None if record.exc_info is None else formatter.formatException(record.exc_info)
