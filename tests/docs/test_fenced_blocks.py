"""What the tests of the pages rest on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.fenced_blocks import Block, fenced_blocks, says_the_same


def test_blocks_have_their_language_code_and_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Text\n\n```python\nf(1)\n\n  g(2)\n```\n\n- item\n\n    ```bash\n    ls\n    ```\n")
    assert list(fenced_blocks(page)) == [Block("python", "f(1)\n\n  g(2)\n", 3), Block("bash", "ls\n", 11)]


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("before 1.8, asked 7.0\n", "before 1.8, asked 7.0"),
        ("before 1.9 (a|b), 0.25", "before 1.8 (a|b), 0.26"),
        ('{"age_s":0.031}', '{"age_s":…}'),
        ("a\nb 3", "a\nb 3"),
    ],
)
def test_small_differences_of_numbers_are_none(printed: str, expected: str) -> None:
    assert says_the_same(printed, expected)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("before 1.6", "before 1.8"),
        ("5 of 29", "6 of 29"),
        ("by 0.19", "by 0.21"),
        ("after 1.8", "before 1.8"),
        ("before 1.8, and more", "before 1.8"),
        ("a 1 2", "a 1"),
        ("one\ntwo", "o…o"),
    ],
)
def test_other_numbers_and_texts_are_differences(printed: str, expected: str) -> None:
    assert not says_the_same(printed, expected)
