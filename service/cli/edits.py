"""Edits and prototypes as they are written on the command line."""

from __future__ import annotations

import math
from typing import Any

import click

from service.client import Edit


class PrototypeType(click.ParamType[int | str]):
    """An index, or a name."""

    name = "prototype"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return int(value) if str(value).isascii() and str(value).isdecimal() else str(value)


class EditType(click.ParamType[Edit]):
    """PROTOTYPE=CHANGE or @ATTRIBUTE=CHANGE: `max`, `min`, a value, `+value`, `-value` or `xvalue`."""

    name = "prototype=change"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Edit:
        if isinstance(value, Edit):
            return value
        which, equals, change = str(value).rpartition("=")
        if not equals or which in ("", "@"):
            self.fail(f"{value!r} is not PROTOTYPE=CHANGE, such as 21=max", param, ctx)
        attribute = which.removeprefix("@") if which.startswith("@") else None
        prototype = None if attribute else PrototypeType().convert(which, param, ctx)
        if change == "max":
            return Edit(prototype, "max", attribute=attribute)
        if change == "min":
            return Edit(prototype, "min", attribute=attribute)
        try:
            if change[:1] in ("+", "-"):
                return Edit(prototype, "add", finite(change), attribute)
            if change[:1] == "x":
                return Edit(prototype, "scale", finite(change[1:]), attribute)
            return Edit(prototype, "set", finite(change), attribute)
        except ValueError:
            self.fail(f"{change!r} is not max, min, 1.5, +0.5, -0.5 or x2", param, ctx)


def finite(text: str) -> float:
    """A number, as JSON can hold it. Raises ValueError."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


EDITS_HELP = (
    "change a prototype, by index or name: 21=max, 21=min, 21=1.5, 21=+0.5, 21=-0.5, 21=x2; or an attribute, "
    "where the model knows labels: @smile=max; repeatable"
)
