"""Code in pages: fenced blocks, and whether what a block printed is what the page says that it prints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCED = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$", re.M | re.S)
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")
_PLACE = "\0"
_ANYTHING = "…"


@dataclass(frozen=True)
class Block:
    """language: as written behind the fence; line: where it begins."""

    language: str
    code: str
    line: int


def fenced_blocks(page: Path) -> Iterator[Block]:
    """Those of one page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCED.finditer(text):
        code = re.sub(f"^{found['indent']}", "", found["code"], flags=re.M)
        yield Block(found["language"], code, text.count("\n", 0, found.start()) + 1)


def says_the_same(printed: str, expected: str) -> bool:
    """Whether texts agree but for one in the last decimal of a number, and for what the page elides with an …

    Whole numbers are to be the same.
    """
    pieces = [_NUMBER.sub(_PLACE, piece) for piece in expected.strip().split(_ANYTHING)]
    escaped = (_NUMBER.pattern.join(map(re.escape, piece.split(_PLACE))) for piece in pieces)
    found = re.fullmatch(r"[^\n]*".join(escaped), printed.strip())
    if found is None:
        return False
    shown = _NUMBER.findall(expected)
    return all(_is_near(number, other) for number, other in zip(shown, found.groups(), strict=True))


def _is_near(number: str, other: str) -> bool:
    decimals = len(number.partition(".")[2])
    allowed = 1.01 * 10.0**-decimals if decimals else 0.0
    return abs(float(number) - float(other)) <= allowed
