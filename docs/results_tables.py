"""Tables of `benchmarks/results`, put into pages as they were printed, so that no figure is copied by hand.

A line of a page asks for one:

    {{ table "ground_truth/edits.md" rows="mean" columns="label; moved; success" }}
    {{ table "inversion.md" heading="Zero edit" }}

It is the first table below the heading, or of the file. rows: a pattern that the row's first cell holds;
columns: their names, in order, with semicolons. Below it stands where it is from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"

_DIRECTIVE = re.compile(r'^\{\{ table "(?P<file>[^"]+)"(?P<options>(?: \w+="[^"]*")*) \}\}$', re.MULTILINE)
_OPTION = re.compile(r'(\w+)="([^"]*)"')
_CELLS = re.compile(r"(?<!\\)\|")


class ResultsTableError(ValueError):
    """A page asks for a table, row or column that is not there."""


def with_tables(markdown: str, *, measurements: str) -> str:
    """The page with its tables; `measurements` is the way to the folder of the whole result pages.

    Raises ResultsTableError.
    """

    def written(found: re.Match[str]) -> str:
        options = dict(_OPTION.findall(found["options"]))
        unknown = options.keys() - {"heading", "rows", "columns"}
        if unknown:
            raise ResultsTableError(f"{found[0]} has unknown options: {', '.join(sorted(unknown))}")
        lines = (RESULTS / found["file"]).read_text(encoding="utf-8").splitlines()
        rows = _first_table(lines, options.get("heading"), found["file"])
        rows = _chosen(rows, options.get("rows"), options.get("columns"), found["file"])
        text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
        return f"{text}\n\n*From [{found['file']}]({measurements}/{found['file']}).*"

    text = _DIRECTIVE.sub(written, markdown)
    if "{{ table" in text:
        line = next(line for line in text.splitlines() if "{{ table" in line)
        raise ResultsTableError(f"not understood: {line}")
    return text


def _first_table(lines: Sequence[str], heading: str | None, file: str) -> list[list[str]]:
    """Its rows, the heading and the line below it included, each as cells."""
    start = 0
    if heading is not None:
        starts = [i for i, line in enumerate(lines) if line.startswith("#") and heading in line]
        if not starts:
            raise ResultsTableError(f"{file} has no heading {heading!r}")
        start = starts[0]
    rows: list[list[str]] = []
    for line in lines[start:]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in _CELLS.split(line.strip())[1:-1]])
        elif rows:
            break
    if not rows:
        raise ResultsTableError(f"{file} has no table below {heading!r}")
    return rows


def _chosen(rows: list[list[str]], pattern: str | None, columns: str | None, file: str) -> list[list[str]]:
    head, line, *body = rows
    if pattern is not None:
        body = [row for row in body if re.search(pattern, row[0])]
        if not body:
            raise ResultsTableError(f"{file} has no row that matches {pattern!r}")
    if columns is None:
        return [head, line, *body]
    names = [name.strip() for name in columns.split(";")]
    lost = [name for name in names if name not in head]
    if lost:
        raise ResultsTableError(f"{file} has no column {lost[0]!r} but {', '.join(head)}")
    places = [head.index(name) for name in names]
    return [[row[place] for place in places] for row in (head, line, *body)]
