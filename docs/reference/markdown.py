"""Markdown as the generated pages use it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CODE = re.compile(r"(`[^`]*`)")
_SPECIAL = re.compile(r"([\[\]>*_|\\])")


def prose(text: str) -> str:
    """Text of a docstring or description: what is not `code` has no meaning to Markdown.

    So `activations [m][h][w]` is no reference to a link, and `x_T` no emphasis.
    """
    return "".join(part if part.startswith("`") else _plain(part) for part in _CODE.split(text))


def _plain(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text).replace("<", "&lt;")  # which no backslash escapes


def code(text: str) -> str:
    """In a table too, where a | between backticks divides no cells."""
    return f"`{text}`" if text else ""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already; line ends in them become spaces."""
    lines = [columns, ["---"] * len(columns), *rows]
    return (
        "\n".join("| " + " | ".join(" ".join(cell.split()) for cell in line) + " |" for line in lines) + "\n"
    )


def anchor(text: str) -> str:
    """What a heading with this text may be linked by."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
