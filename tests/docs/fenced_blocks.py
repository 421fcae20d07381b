"""Code in pages: fenced blocks, and whether what a block printed is what the page says that it prints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCED = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$", re.M | re.S)
_INDENTED = re.compile(r"(?:^    [^\n]*\n)+", re.M)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_ANYTHING = "…"


@dataclass(frozen=True)
class Block:
    """language: as written behind the fence, empty for an indented block; line: where it begins."""

    language: str
    code: str
    line: int


def fenced_blocks(page: Path) -> Iterator[Block]:
    """Those of one page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCED.finditer(text):
        code = re.sub(f"^{found['indent']}", "", found["code"], flags=re.M)
        yield Block(found["language"], code, text.count("\n", 0, found.start()) + 1)


def says_the_same(printed: str, expected: str, *, tolerance: float) -> bool:
    """Whether texts agree but for numbers, each within `tolerance`, and what the page elides with an …"""
    pieces = [_NUMBER.sub("(NUMBER)", re.escape(piece).replace(r"\.", ".")) for piece in expected.strip().split("…")]
    pattern = r"[^\n]*".join(piece.replace("(NUMBER)", r"(\d+(?:\.\d+)?)") for piece in pieces)
    found = re.fullmatch(pattern, printed.strip())
    if found is None:
        return False
    numbers = _NUMBER.findall(expected.replace(_ANYTHING, " "))
    return all(
        abs(float(a) - float(b)) <= tolerance + 1e-9 for a, b in zip(found.groups(), numbers, strict=True)
    )
