"""The idx format of MNIST and its successors, gzipped or plain."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.dataset import DataError, Split
from training.data.source import Annotations, ArraySource, Origin

_PREFIXES: dict[Split, str] = {"train": "train", "test": "t10k"}


def idx_source(directory: Path, split: Split, class_names: tuple[str, ...], origin: Origin) -> ArraySource:
    """One split from its official image and label files. Raises DataError."""
    prefix = _PREFIXES[split]
    images_path = _find(directory, prefix, "images", 3, origin)
    labels_path = _find(directory, prefix, "labels", 1, origin)
    images = _read(images_path, origin)
    labels = _read(labels_path, origin)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise origin.broken(
            directory,
            f"has {split} images {images.shape} and labels {labels.shape} that do not belong together",
        )
    if len(labels) and labels.max() >= len(class_names):
        raise origin.broken(
            labels_path, f"has a label {labels.max()}, classes are 0 to {len(class_names) - 1}"
        )
    annotations = Annotations(labels.astype(np.int64), class_names)
    return ArraySource(images, annotations, (images_path, labels_path), origin)


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """An idx file of unsigned bytes (LeCun's format: 0, 0, type 8, rank, sizes, data); gzipped if named .gz.

    Raises DataError.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as file:
                content = file.read()
        else:
            content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing") from error
    except (OSError, EOFError, zlib.error) as error:
        kind = "complete gzip" if path.suffix == ".gz" else "readable"
        raise DataError(f"{path} is not a {kind} file: {error}") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is not an idx file of unsigned bytes (magic {content[:4].hex()})")
    rank = content[3]
    start = 4 + 4 * rank
    if len(content) < start:
        raise DataError(f"{path} ends inside its header of {start} bytes")
    shape = tuple(np.frombuffer(content[4:start], dtype=">u4").tolist())
    size = int(np.prod(shape, dtype=np.int64))
    if len(content) - start != size:
        raise DataError(f"{path} holds {len(content) - start} bytes where its header says {size}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _find(directory: Path, prefix: str, what: str, rank: int, origin: Origin) -> Path:
    """The official name, or as it is after unpacking (some archivers keep a dot before "idx")."""
    official = directory / f"{prefix}-{what}-idx{rank}-ubyte.gz"
    unpacked = (
        directory / f"{prefix}-{what}-idx{rank}-ubyte",
        directory / f"{prefix}-{what}.idx{rank}-ubyte",
    )
    for path in (official, *unpacked):
        if path.is_file():
            return path
    raise origin.missing(official)


def _read(path: Path, origin: Origin) -> npt.NDArray[np.uint8]:
    try:
        return read_idx(path)
    except DataError as error:
        raise DataError(f"{error}; get it from {origin.get_it}; expected layout: {origin.layout}") from error
