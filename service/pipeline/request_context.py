"""What holds for all jobs of one request: each request runs in a context of its own."""

from __future__ import annotations

from contextvars import ContextVar

from service.engine.jobs import Admission, Priority

request_priority: ContextVar[Priority] = ContextVar("request_priority", default=Priority.NORMAL)
"""The priority of all jobs that are made in the current context."""

_admission: ContextVar[Admission] = ContextVar("request_admission")


def begin_request(priority: Priority) -> None:
    """From here on, jobs made in the current context belong to a new request."""
    request_priority.set(priority)
    _admission.set(Admission())


def request_admission() -> Admission:
    """Of the current context's request; outside of any, every job is a request of its own."""
    return _admission.get(None) or Admission()
