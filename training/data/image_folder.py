"""Any folder of images, with a table of labels, class subfolders, or neither."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from pathlib import Path

import numpy as np

from training.data.dataset import DataError, Split
from training.data.label_table import LABEL_TABLE, LABEL_TABLE_LAYOUT, class_labels, read_label_table
from training.data.source import Annotations, FileSource, Origin

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
TEST_SHARE = 10
"""One image in so many is for testing, where a folder says nothing about it."""

IMAGE_FOLDER_ORIGIN = Origin(
    "your own images",
    f"a folder of {', '.join(IMAGE_SUFFIXES)} files, at any depth; with train/ and test/ if you split them "
    f"yourself; with a subfolder for each class, or {LABEL_TABLE}, or neither; {LABEL_TABLE_LAYOUT}",
)


def image_folder_source(directory: Path, split: Split) -> FileSource:
    """One split of a folder: train/ or test/ if both are there, else by a hash of each file's relative path.

    Classes or attributes come from labels.csv in the folder; without it, subfolders are classes if all
    images lie in at least two of them. Raises DataError.
    """
    names = image_files(directory, IMAGE_SUFFIXES, IMAGE_FOLDER_ORIGIN)
    split_by_hand = all((directory / folder).is_dir() for folder in ("train", "test"))
    if split_by_hand:
        names = [name for name in names if name.startswith(("train/", "test/"))]
        chosen = np.array([name.startswith(f"{split}/") for name in names], bool)
    else:
        chosen = np.array([is_for_testing(name) == (split == "test") for name in names], bool)
    if not chosen.any():
        raise DataError(
            f"{directory} has {len(names)} images, none of them for {split}: add images, "
            "or split them into folders train/ and test/"
        )
    annotations = _annotations(directory, names, depth=int(split_by_hand))
    picked = np.flatnonzero(chosen)
    return FileSource(
        directory,
        tuple(names[i] for i in picked),
        Annotations(
            annotations.labels[picked],
            annotations.class_names,
            annotations.attributes[picked],
            annotations.attribute_names,
        ),
        IMAGE_FOLDER_ORIGIN,
    )


def image_files(directory: Path, suffixes: tuple[str, ...], origin: Origin) -> list[str]:
    """Paths of all image files below `directory`, relative to it, with forward slashes, sorted.

    Hidden files and folders are left out. Raises DataError where there are none.
    """
    if not directory.is_dir():
        raise origin.missing(directory)
    names = []
    for folder, subfolders, files in os.walk(directory):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        relative = Path(folder).relative_to(directory)
        names += [
            (relative / name).as_posix()
            for name in files
            if name.lower().endswith(suffixes) and not name.startswith(".")
        ]
    if not names:
        raise origin.broken(directory, f"holds no {', '.join(suffixes)} files")
    return sorted(names)


def is_for_testing(name: str) -> bool:
    """Whether a file belongs to the test split, by its relative path alone: the same on every machine."""
    canonical = unicodedata.normalize("NFC", name).encode(errors="surrogateescape")
    digest = hashlib.sha256(canonical).digest()
    return int.from_bytes(digest[:8], "big") % TEST_SHARE == 0


def _annotations(directory: Path, names: list[str], *, depth: int) -> Annotations:
    """Of all images of both splits, so that both count the same classes."""
    path = directory / LABEL_TABLE
    if path.exists():
        table = read_label_table(path, IMAGE_FOLDER_ORIGIN)
        lost = sorted(set(table.rows) - set(names))
        if lost:
            where = "train/ and test/" if depth else "the folder"
            raise IMAGE_FOLDER_ORIGIN.broken(path, f"names {lost[0]}, which is no image file in {where}")
        return table.of(names)
    parts = [name.split("/") for name in names]
    if all(len(part) > depth + 1 for part in parts):
        labels, class_names = class_labels([part[depth] for part in parts])
        if len(class_names) > 1:
            return Annotations(labels, class_names, np.zeros((len(names), 0), np.int8))
    return Annotations(np.zeros(len(names), np.int64), (), np.zeros((len(names), 0), np.int8))
