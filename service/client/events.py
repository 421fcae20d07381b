"""Server-sent events (WHATWG HTML Living Standard, section 9.2), as far as the service sends them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from service.client.errors import AnswerError
from service.client.images import Picture
from service.client.reading import parse

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class Progress:
    """`step` of `steps` of a stage are done for one image of the request.

    stage: invert, generate, correct or intervene; image: index, for an edit 0 the edited and 1 the
    reconstruction; prototype: of visualize and diagnose; preview: x̂₀, where `preview_every` asks for it.
    """

    stage: str
    image: int
    step: int
    steps: int
    prototype: int | None = None
    preview: Picture | None = None


@dataclass(frozen=True)
class Event:
    name: str
    data: bytes

    def progress(self) -> Progress:
        """Raises AnswerError."""
        try:
            return parse(Progress, json.loads(self.data))
        except ValueError as error:
            raise AnswerError(f"a progress event cannot be read: {error}") from error


class EventParser:
    """Bytes as they come in, events as they are complete."""

    def __init__(self) -> None:
        self._buffer = b""
        self._name = ""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that `chunk` completes."""
        self._buffer += chunk
        # A \r at the very end may be half of \r\n: it is left for the next chunk.
        complete = _LINE_END.split(self._buffer[:-1] if self._buffer.endswith(b"\r") else self._buffer)
        rest = complete.pop()
        self._buffer = rest + (b"\r" if self._buffer.endswith(b"\r") else b"")
        for line in complete:
            event = self._take(line)
            if event is not None:
                yield event

    def _take(self, line: bytes) -> Event | None:
        if not line:
            event = Event(self._name or "message", b"\n".join(self._data)) if self._data else None
            self._name, self._data = "", []
            return event
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._name = value.decode("utf-8", "replace")
        elif name == b"data":
            self._data.append(value)
        return None  # comments, which have no name, keep the connection open and say nothing
