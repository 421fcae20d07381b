"""Flickr-Faces-HQ: numbered PNG files."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from training.data.dataset import DataError, Split
from training.data.image_folder import image_files
from training.data.label_table import LABEL_TABLE, LABEL_TABLE_LAYOUT, read_label_table
from training.data.source import Annotations, FileSource, Origin

NUM_IMAGES = 70_000
NUM_TRAINING_IMAGES = 60_000

FFHQ_ORIGIN = Origin(
    "https://github.com/NVlabs/ffhq-dataset (thumbnails128x128 is enough for 64 pixels)",
    "a directory with 00000.png to 69999.png, all in one folder or in 00000/, 01000/ and so on of "
    f"1000 images each; optionally with {LABEL_TABLE}; {LABEL_TABLE_LAYOUT}",
)


def ffhq_source(directory: Path, split: Split) -> FileSource:
    """FFHQ (Karras et al. 2019): images numbered below 60000 are train, the rest test.

    Of a directory with fewer than 70000 images, the last seventh is test. A row of labels.csv belongs to the
    image with the same number. Raises DataError.
    """
    numbered: dict[int, str] = {}
    for name in image_files(directory, (".png",), FFHQ_ORIGIN):
        number = _number(name)
        if number is None:
            continue
        if number in numbered:
            raise DataError(
                f"{directory} has image {number} twice, {numbered[number]} and {name}: "
                "name the folder of one of them"
            )
        numbered[number] = name
    numbers = sorted(numbered)
    if len(numbers) < 2:
        raise FFHQ_ORIGIN.broken(directory, f"holds {len(numbers)} numbered PNG files, too few to split")
    chosen = numbers_of(split, numbers)
    names = tuple(numbered[number] for number in chosen)
    return FileSource(directory, names, _annotations(directory, chosen, set(numbers)), FFHQ_ORIGIN)


def numbers_of(split: Split, numbers: list[int]) -> list[int]:
    """Those of the ascending `numbers`, at least two, that belong to a split."""
    if len(numbers) >= NUM_IMAGES:
        return [number for number in numbers if (number < NUM_TRAINING_IMAGES) == (split == "train")]
    num_test = max(1, len(numbers) // 7)
    return numbers[:-num_test] if split == "train" else numbers[-num_test:]


def _annotations(directory: Path, chosen: list[int], numbers: set[int]) -> Annotations:
    path = directory / LABEL_TABLE
    if not path.exists():
        return Annotations.none(len(chosen))
    table = read_label_table(path, FFHQ_ORIGIN)
    rows: dict[int, str] = {}
    for name in table.rows:
        number = _number(name)
        if number is None or number not in numbers:
            raise FFHQ_ORIGIN.broken(path, f"names {name}, which is no image of {directory}")
        if number in rows:
            raise FFHQ_ORIGIN.broken(path, f"has two lines for image {number}: {rows[number]} and {name}")
        rows[number] = name
    return table.of([rows.get(number, f"image {number}") for number in chosen])


def _number(name: str) -> int | None:
    stem = PurePosixPath(name).stem
    return int(stem) if stem.isascii() and stem.isdigit() else None
