"""CelebA: aligned faces with 40 attributes, as the authors distribute it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.dataset import Split
from training.data.source import Annotations, FileSource, Origin

CELEBA_ORIGIN = Origin(
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    "a directory with img_align_celeba/000001.jpg and so on, list_attr_celeba.txt and "
    "list_eval_partition.txt (or these three in Img/, Anno/ and Eval/)",
)
_PARTITIONS: dict[Split, str] = {"train": "0", "test": "2"}


def celeba_source(directory: Path, split: Split) -> FileSource:
    """CelebA (Liu et al. 2015), official partitions: 0 is train, 2 is test; 1 (validation) is in neither.

    The 40 attributes, -1 and 1 in the file, become 0 and 1. Raises DataError.
    """
    images = _find(directory, "Img", "img_align_celeba")
    attribute_names, rows = _read_attributes(_find(directory, "Anno", "list_attr_celeba.txt"))
    partition_path = _find(directory, "Eval", "list_eval_partition.txt")
    names = _read_partition(partition_path, _PARTITIONS[split])
    if not names:
        raise CELEBA_ORIGIN.broken(
            partition_path, f"names no images of partition {_PARTITIONS[split]} ({split})"
        )
    try:
        attributes = np.array([rows[name] for name in names], np.int8)
    except KeyError as error:
        reason = f"names {error.args[0]}, which list_attr_celeba.txt lacks"
        raise CELEBA_ORIGIN.broken(partition_path, reason) from error
    annotations = Annotations(np.zeros(len(names), np.int64), (), attributes, attribute_names)
    return FileSource(images, names, annotations, CELEBA_ORIGIN)


def _find(directory: Path, folder: str, name: str) -> Path:
    for path in (directory / name, directory / folder / name):
        if path.exists():
            return path
    raise CELEBA_ORIGIN.missing(directory / name)


def _read_attributes(path: Path) -> tuple[tuple[str, ...], dict[str, npt.NDArray[np.int8]]]:
    """First line: the number of images; second: attribute names; then a file name and -1 or 1 for each."""
    lines = CELEBA_ORIGIN.read_text(path).splitlines()
    if len(lines) < 2 or not lines[0].strip().isdigit():
        raise CELEBA_ORIGIN.broken(path, "does not begin with the number of images and the attribute names")
    attribute_names = tuple(lines[1].split())
    values = {"1": 1, "-1": 0}
    rows: dict[str, npt.NDArray[np.int8]] = {}
    for number, line in enumerate(lines[2:], start=3):
        if not line.strip():
            continue
        name, *cells = line.split()
        try:
            row = np.array([values[cell] for cell in cells], np.int8)
        except KeyError as error:
            reason = f"has {error.args[0]!r} in line {number}, an attribute is 1 or -1"
            raise CELEBA_ORIGIN.broken(path, reason) from error
        if len(row) != len(attribute_names):
            raise CELEBA_ORIGIN.broken(
                path, f"has {len(row)} values for {len(attribute_names)} attributes in line {number}"
            )
        rows[name] = row
    if len(rows) != int(lines[0]):
        raise CELEBA_ORIGIN.broken(
            path, f"lists {len(rows)} images where its first line says {lines[0].strip()}"
        )
    return attribute_names, rows


def _read_partition(path: Path, partition: str) -> tuple[str, ...]:
    names = []
    for number, line in enumerate(CELEBA_ORIGIN.read_text(path).splitlines(), start=1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != 2 or cells[1] not in ("0", "1", "2"):
            raise CELEBA_ORIGIN.broken(
                path, f"has {line.strip()!r} in line {number}, expected a file name and 0, 1 or 2"
            )
        if Path(cells[0]).name != cells[0]:
            raise CELEBA_ORIGIN.broken(
                path, f"names {cells[0]!r} in line {number}, outside of the images' folder"
            )
        if cells[1] == partition:
            names.append(cells[0])
    return tuple(names)
