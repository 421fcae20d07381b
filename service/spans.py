"""Named parts of the work on a request, for whoever records them; where nobody does, they cost nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Protocol

Value = str | bool | int | float


class SpanRecorder(Protocol):
    """Records what a request is busy with; must return quickly and not raise."""

    def span(self, name: str, values: Mapping[str, Value]) -> AbstractContextManager[None]:
        """A part of the work, as long as the context is entered; parts may lie within parts."""
        ...

    def event(self, name: str, values: Mapping[str, Value]) -> None:
        """Something that has just happened in the current part."""
        ...


recorder: ContextVar[SpanRecorder | None] = ContextVar("span_recorder", default=None)
"""Of the request that is being handled; set by `service.tracing`, and never where tracing is off."""


def span(name: str, **values: Value) -> AbstractContextManager[None]:
    """`SpanRecorder.span` of the current request."""
    current = recorder.get()
    return nullcontext() if current is None else current.span(name, values)


def event(name: str, **values: Value) -> None:
    """`SpanRecorder.event` of the current request."""
    current = recorder.get()
    if current is not None:
        current.event(name, values)
