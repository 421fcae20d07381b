"""Faces as pictures, and where in them each attribute is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from model.transforms import Pixels
from training.data.cartoon_faces.attributes import attribute_named
from training.data.cartoon_faces.faces import Faces
from training.data.cartoon_faces.shapes import Float
from training.data.cartoon_faces.sheet import Stroke, column, slices
from training.data.cartoon_faces.strokes import background, strokes
from training.data.dataset import DataError

Float32 = npt.NDArray[np.float32]

SIZE = 64
MIN_SIZE, MAX_SIZE = 16, 256
BATCH_SIZE = 32
"""Faces drawn together; their coordinates then fit into a core's cache."""

Drawn = TypeVar("Drawn", Pixels, Float32)


def render(faces: Faces, size: int = SIZE) -> Pixels:
    """Pixels (N, 3, size, size) uint8. A face looks the same whatever it is drawn with. Raises DataError."""

    def paint(faces: Faces) -> Pixels:
        picture = background(faces, size).copy()
        for stroke in strokes(faces, size):
            _cover(picture, stroke, stroke.colour)
        picture *= 255.0 * column(faces.values["lighting"])[:, None]
        picture += 0.5
        return np.minimum(picture, 255.0).astype(np.uint8)

    return _in_batches(paint, faces, size)


def masks(faces: Faces, attribute: str, size: int = SIZE) -> Float32:
    """How much of each pixel (N, size, size), 0 to 1, shows strokes that the attribute's value has drawn.

    What later strokes hide is not counted. Empty where the value draws nothing, such as "no_hat". Skin tone
    owns the visible skin; size, tilt and age own the whole head, lighting the whole picture. Two faces that
    differ in one attribute only differ in no pixel where both their masks are 0. Raises DataError.
    """
    name = attribute_named(attribute).name

    def paint(faces: Faces) -> Float32:
        if name == "lighting":
            return np.ones((len(faces), size, size), np.float32)
        shown = np.zeros((len(faces), 1, size, size), np.float32)
        for stroke in strokes(faces, size):
            owned = name in stroke.owners
            _cover(shown, stroke, np.full((1, 1, 1, 1), owned, np.float32))
        return shown[:, 0]

    return _in_batches(paint, faces, size)


def changed_pixels(faces: Faces, others: Faces, size: int = SIZE) -> npt.NDArray[np.bool_]:
    """Whether each pixel (N, size, size) of two drawings differs: where a counterfactual acts."""
    return np.asarray((render(faces, size) != render(others, size)).any(axis=1))


def _in_batches(paint: Callable[[Faces], Drawn], faces: Faces, size: int) -> Drawn:
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise DataError(f"cartoon faces are {MIN_SIZE} to {MAX_SIZE} pixels wide and high, not {size}")
    starts = range(0, max(len(faces), 1), BATCH_SIZE)
    return np.concatenate([paint(faces[start : start + BATCH_SIZE]) for start in starts])


def _cover(picture: Float32, stroke: Stroke, colour: Float) -> None:
    """Paint over picture (N, C, H, W). What is fully covered leaves no trace, to the last bit."""
    if not len(stroke.rows):
        return
    everyone = len(stroke.rows) == len(picture)
    rows, columns = slices(stroke.window, picture.shape[-1])
    part = picture[:, :, rows, columns] if everyone else picture[stroke.rows, :, rows, columns]
    coverage = stroke.coverage[:, None]
    part *= 1.0 - coverage
    part += coverage * colour
    if not everyone:
        picture[stroke.rows, :, rows, columns] = part
