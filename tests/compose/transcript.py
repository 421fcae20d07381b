"""What was looked at, line by line as it happens, and whether all of it was right."""

from __future__ import annotations

import time


class Transcript:
    """Prints as it goes; `conclude` gives the exit status."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._num_right = 0
        self._wrong: list[str] = []

    def section(self, title: str) -> None:
        print(f"\n== {title}", flush=True)

    def note(self, text: str) -> None:
        print(f"{self._time()}      {text}", flush=True)

    def check(self, what: str, is_right: bool, seen: object = "") -> None:
        """One fact, and what was seen of it."""
        if is_right:
            self._num_right += 1
        else:
            self._wrong.append(what)
        print(
            f"{self._time()} {'ok  ' if is_right else 'FAIL'} {what}{f': {seen}' if seen != '' else ''}",
            flush=True,
        )

    def conclude(self) -> int:
        print(
            f"\n{self._num_right} right, {len(self._wrong)} wrong, {time.monotonic() - self._started:.0f} s"
        )
        for what in self._wrong:
            print(f"wrong: {what}")
        return 1 if self._wrong else 0

    def _time(self) -> str:
        return f"{time.monotonic() - self._started:6.1f} s"
