"""A CSV that gives the images of a folder their classes or attributes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from training.data.dataset import UNKNOWN
from training.data.source import Annotations, Origin

LABEL_TABLE = "labels.csv"
LABEL_TABLE_LAYOUT = (
    f"{LABEL_TABLE} has a header line, then in each line a file name relative to the folder and either "
    "one class name or number, or several attributes: 1 yes, 0 no, -1 or nothing unknown"
)

_ATTRIBUTE_VALUES = {"1": 1, "0": 0, "-1": UNKNOWN, "": UNKNOWN, "1.0": 1, "0.0": 0, "-1.0": UNKNOWN}


@dataclass(frozen=True)
class LabelTable:
    """The rows of a table, found by file name."""

    path: Path
    rows: dict[str, int]
    annotations: Annotations
    origin: Origin

    def of(self, names: Sequence[str]) -> Annotations:
        """Annotations of these images. One without a row has unknown attributes; it may not lack a class.

        Raises DataError.
        """
        table = self.annotations
        rows = np.array([self.rows.get(name, -1) for name in names], np.int64)
        known = rows >= 0
        if table.class_names and not known.all():
            without = names[int(np.argmin(known))]
            raise self.origin.broken(self.path, f"gives no class to {without}")
        attributes = np.full((len(rows), len(table.attribute_names)), UNKNOWN, np.int8)
        attributes[known] = table.attributes[rows[known]]
        labels = np.zeros(len(rows), np.int64)
        labels[known] = table.labels[rows[known]]
        return Annotations(labels, table.class_names, attributes, table.attribute_names)


def read_label_table(path: Path, origin: Origin) -> LabelTable:
    """The table in `path`. Raises DataError."""
    header, lines = _read(path, origin)
    rows: dict[str, int] = {}
    for number, line in enumerate(lines, start=2):
        name = _file_name(line[0])
        if name is None:
            reason = f"names {line[0]!r} in line {number}: a file name must be relative, without '..'"
            raise origin.broken(path, reason)
        if name in rows:
            raise origin.broken(path, f"names {name} twice, again in line {number}")
        rows[name] = len(rows)
    cells = [line[1:] for line in lines]
    if len(header) == 2:
        labels, class_names = class_labels([row[0] for row in cells])
        if "" in class_names:
            raise origin.broken(path, f"has an empty class in line {cells.index(['']) + 2}")
        annotations = Annotations(labels, class_names, np.zeros((len(rows), 0), np.int8))
    else:
        attributes = _attributes(path, cells, len(header) - 1, origin)
        annotations = Annotations(np.zeros(len(rows), np.int64), (), attributes, tuple(header[1:]))
    return LabelTable(path, rows, annotations, origin)


def class_labels(values: Sequence[str]) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Labels (N,) and the class names they count, in numerical order if all are integers, else A to Z."""
    names = sorted(set(values))
    if all(re.fullmatch(r"-?[0-9]+", name) for name in names):
        names.sort(key=int)
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[value] for value in values], np.int64), tuple(names)


def _read(path: Path, origin: Origin) -> tuple[list[str], list[list[str]]]:
    """Header and lines, all of the same length, cells stripped."""
    reader = csv.reader(io.StringIO(origin.read_text(path).rstrip()), strict=True)
    try:
        lines = [[cell.strip() for cell in line] for line in reader]
    except csv.Error as error:
        raise origin.broken(path, f"is not a CSV file: {error} in line {reader.line_num}") from error
    if len(lines) < 2 or len(lines[0]) < 2:
        raise origin.broken(path, "does not hold a header, two columns and a line for an image")
    header = lines[0]
    if len(set(header)) < len(header):
        raise origin.broken(path, f"has a column name twice: {', '.join(header)}")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise origin.broken(
                path, f"has {len(line)} cells in line {number} where its header has {len(header)}"
            )
    return header, lines[1:]


def _file_name(cell: str) -> str | None:
    """The name with forward slashes, or None where it leads out of the folder."""
    parts = re.split(r"[\\/]", cell)
    if not cell or ".." in parts or parts[0] == "" or re.match(r"[A-Za-z]:", cell):
        return None
    return PurePosixPath(*parts).as_posix()


def _attributes(path: Path, cells: list[list[str]], width: int, origin: Origin) -> npt.NDArray[np.int8]:
    found = {cell for row in cells for cell in row}
    wrong = sorted(found - set(_ATTRIBUTE_VALUES))
    if wrong:
        line = next(number for number, row in enumerate(cells, start=2) if wrong[0] in row)
        raise origin.broken(path, f"has {wrong[0]!r} in line {line}, an attribute is 1, 0, -1 or empty")
    if {_ATTRIBUTE_VALUES[cell] for cell in found if cell} == {1, -1}:
        raise origin.broken(
            path,
            "has 1 and -1 but no 0: -1 means unknown, write 0 where an image lacks an attribute, "
            "and leave cells empty if it is unknown everywhere",
        )
    values = [[_ATTRIBUTE_VALUES[cell] for cell in row] for row in cells]
    return np.array(values, np.int8).reshape(-1, width)
