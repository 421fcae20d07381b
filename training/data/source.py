"""What every format gives: annotations, pictures that are decoded one at a time, and a fingerprint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.data.dataset import DataError


class Source(Protocol):
    """One split in its own format; nothing is decoded before `picture` is called, from several threads."""

    @property
    def annotations(self) -> Annotations: ...

    def __len__(self) -> int: ...

    def picture(self, i: int) -> Image.Image:
        """Picture i, decoded, 8-bit gray or RGB. Raises DataError or what Pillow raises."""
        ...

    def broken(self, i: int, reason: object) -> DataError:
        """The error that says which picture cannot be used, where to get it, and the expected layout."""
        ...

    def fingerprint(self) -> str:
        """Changes whenever a file that holds pictures, or the choice of them, changes."""
        ...


@dataclass(frozen=True)
class Annotations:
    """What is known of each image of a split, as in Dataset."""

    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...] = ()
    attributes: npt.NDArray[np.int8] = field(default_factory=lambda: np.zeros((0, 0), np.int8))
    attribute_names: tuple[str, ...] = ()

    @classmethod
    def none(cls, num_images: int) -> Annotations:
        """For a data set without labels."""
        return cls(np.zeros(num_images, np.int64))


@dataclass(frozen=True)
class Origin:
    """Where a data set is to be had, and how its files must lie; every error about a file says both."""

    get_it: str
    layout: str

    def missing(self, path: Path | str) -> DataError:
        return DataError(f"{path} is missing: get it from {self.get_it}; expected layout: {self.layout}")

    def broken(self, path: Path | str, reason: object) -> DataError:
        """`reason` completes the sentence that begins with the path."""
        return DataError(f"{path} {reason}; get it from {self.get_it}; expected layout: {self.layout}")

    def read_text(self, path: Path) -> str:
        """A UTF-8 text file. Raises DataError where it is missing or something else."""
        try:
            return path.read_text(encoding="utf-8-sig")
        except FileNotFoundError as error:
            raise self.missing(path) from error
        except (OSError, UnicodeDecodeError) as error:
            raise self.broken(path, f"is not a readable text file: {error}") from error


@dataclass(frozen=True)
class ArraySource:
    """Pictures that a few files hold as one array: (N, H, W) gray or (N, H, W, 3) RGB, uint8."""

    images: npt.NDArray[np.uint8]
    annotations: Annotations
    files: tuple[Path, ...]
    origin: Origin

    def __len__(self) -> int:
        return len(self.images)

    def picture(self, i: int) -> Image.Image:
        return Image.fromarray(self.images[i])

    def broken(self, i: int, reason: object) -> DataError:
        return self.origin.broken(self.files[0], f"has a picture {i} that cannot be used: {reason}")

    def fingerprint(self) -> str:
        return file_fingerprint(self.files, self.origin)


@dataclass(frozen=True)
class FileSource:
    """One image file for each picture; `names` are relative to `root`, in the order of the split."""

    root: Path
    names: tuple[str, ...]
    annotations: Annotations
    origin: Origin

    def __len__(self) -> int:
        return len(self.names)

    def picture(self, i: int) -> Image.Image:
        with Image.open(self.root / self.names[i]) as picture:
            return opaque(picture)

    def broken(self, i: int, reason: object) -> DataError:
        return self.origin.broken(self.root / self.names[i], f"is not a usable image: {reason}")

    def fingerprint(self) -> str:
        return file_fingerprint((self.root / name for name in self.names), self.origin)


def file_fingerprint(paths: Iterable[Path], origin: Origin) -> str:
    """A digest of the paths, sizes and modification times, in order. Raises DataError for a missing file."""
    digest = hashlib.sha256()
    for path in paths:
        name = os.path.abspath(path)
        try:
            status = os.stat(name)
        except OSError as error:
            raise origin.missing(path) from error
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def opaque(picture: Image.Image) -> Image.Image:
    """The picture, decoded, if its meaning is plain 8-bit gray or RGB: what the service admits, too.

    Raises ValueError for 16-bit, floating point, CMYK and transparent pictures, which a conversion
    would clip or recolour silently.
    """
    if picture.mode not in ("1", "L", "P", "RGB", "LA", "RGBA"):
        raise ValueError(f"it has colour mode {picture.mode}: convert it to 8-bit gray or RGB first")
    picture.load()
    if not picture.has_transparency_data:
        return picture
    with_alpha = picture.convert("RGBA")
    lowest: Any = with_alpha.getchannel("A").getextrema()[0]
    if lowest != 255:
        raise ValueError("it is transparent in places: flatten it onto a background first")
    return with_alpha
