"""How far a command is, in one line on a terminal."""

from __future__ import annotations

import sys
from typing import TextIO

from service.client import Progress

WIDTH = 30


class ProgressLine:
    """A bar on stderr, wiped at the end; nothing at all where that is no terminal, or with `quiet`."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_shown = not quiet and self._stream.isatty()
        self._last = ""
        self._steps: dict[int, int] = {}
        self._part: tuple[str, int | None] | None = None

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *error: object) -> None:
        if self._last:
            self._stream.write("\r" + " " * len(self._last) + "\r")
            self._stream.flush()

    def show(self, label: str, done: int, total: int) -> None:
        """`done` of `total`."""
        if not self._is_shown:
            return
        filled = WIDTH * done // max(1, total)
        text = f"{label} [{'#' * filled}{'-' * (WIDTH - filled)}] {done}/{total}"
        self._stream.write("\r" + text.ljust(len(self._last)))
        self._stream.flush()
        self._last = text

    def follow_file(self, name: str, num_bytes: int, size: int) -> None:
        """A file that comes or goes, in KiB."""
        self.show(f"{name}, KiB", num_bytes // 1024, size // 1024)

    def follow(self, progress: Progress) -> None:
        """A request that is streamed: of several images, the one that is least far."""
        part = (progress.stage, progress.prototype)
        if part != self._part:
            self._part, self._steps = part, {}
        self._steps[progress.image] = progress.step
        label = progress.stage if progress.prototype is None else f"{progress.stage} {progress.prototype}"
        self.show(label, min(self._steps.values()), progress.steps)
