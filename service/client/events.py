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
        self._line = bytearray()  # what came of the line that is not complete
        self._name = ""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that `chunk` completes."""
        if self._line.endswith(b"\r"):  # it may be half of \r\n
            del self._line[-1:]
            chunk = b"\r" + chunk
        # Only what is new is searched: a result may be one line of many megabytes.
        *complete, rest = _LINE_END.split(chunk[:-1] if chunk.endswith(b"\r") else chunk)
        for line in complete:
            self._line += line
            event = self._take(bytes(self._line))
            self._line.clear()
            if event is not None:
                yield event
        self._line += rest + (b"\r" if chunk.endswith(b"\r") else b"")

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
