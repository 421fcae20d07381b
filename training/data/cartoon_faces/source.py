"""The data set of cartoon faces: its splits, and their pictures, drawn instead of read."""

from __future__ import annotations

import hashlib
import inspect
import threading

import numpy as np
from PIL import Image

from model.config import ImageConfig
from model.transforms import Pixels
from training.data.cartoon_faces import attributes, couplings, drawing, faces, shapes, sheet, strokes
from training.data.cartoon_faces.attributes import LABELS
from training.data.cartoon_faces.couplings import parse_couplings
from training.data.cartoon_faces.faces import Faces, sample_faces
from training.data.dataset import DataError, Split
from training.data.source import Annotations

CARTOON_FACES = "cartoon-faces"
SPLITS: dict[Split, tuple[int, int]] = {"train": (0, 50_000), "test": (1, 5_000)}
"""The seed and the number of faces."""

BLOCK_SIZE = 64
"""Faces drawn at once when one of them is asked for."""


def is_cartoon_faces(name: str) -> bool:
    return name.partition(":")[0] == CARTOON_FACES


def split_faces(name: str, split: Split) -> Faces:
    """The faces behind one split of `cartoon-faces`, or of `cartoon-faces:<coupling>[+<coupling>…]`.

    Image i of the data set is `render(split_faces(name, split)[i : i + 1], size)`. Raises DataError.
    """
    seed, count = SPLITS[split]
    _, colon, text = name.partition(":")
    return sample_faces(seed, count, couplings=parse_couplings(text) if colon else ())


def cartoon_faces_source(name: str, split: Split, image: ImageConfig) -> CartoonFacesSource:
    """Cartoon faces in the size of `image`, which is square. Raises DataError."""
    if image.height != image.width or not drawing.MIN_SIZE <= image.height <= drawing.MAX_SIZE:
        raise DataError(
            f"{CARTOON_FACES} are square, {drawing.MIN_SIZE} to {drawing.MAX_SIZE} pixels wide and high, "
            f"not {image.width} and {image.height}"
        )
    return CartoonFacesSource(name, split_faces(name, split), image.height)


class CartoonFacesSource:
    """One split; every label is a two-valued attribute, there are no classes."""

    def __init__(self, name: str, faces: Faces, size: int) -> None:
        self.name = name
        self.faces = faces
        self.size = size
        names = tuple(label.name for label in LABELS)
        self.annotations = Annotations(np.zeros(len(faces), np.int64), (), faces.labels(), names)
        self._last = _LastBlock()

    def __len__(self) -> int:
        return len(self.faces)

    def picture(self, i: int) -> Image.Image:
        number, row = divmod(i, BLOCK_SIZE)
        if self._last.number != number:
            start = number * BLOCK_SIZE
            block = drawing.render(self.faces[start : start + BLOCK_SIZE], self.size)
            self._last.number = number
            self._last.pictures = np.ascontiguousarray(block.transpose(0, 2, 3, 1))
        return Image.fromarray(self._last.pictures[row])

    def broken(self, i: int, reason: object) -> DataError:
        return DataError(f"{self.name}: face {i} cannot be drawn: {reason}")

    def fingerprint(self) -> str:
        """Of the name, which says the couplings, and of the code that samples and draws."""
        digest = hashlib.sha256(self.name.encode())
        for module in (attributes, couplings, faces, shapes, sheet, strokes, drawing):
            digest.update(inspect.getsource(module).encode())
        return f"{digest.hexdigest()} {SPLITS} {self.size}"


class _LastBlock(threading.local):
    """What each thread drew last: the pictures (n, H, W, 3) of a block."""

    number = -1
    pictures: Pixels
