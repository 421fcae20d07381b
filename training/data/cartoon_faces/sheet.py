"""What faces are drawn on: the coordinates of pixels, the measures of heads, and a stroke upon them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.data.cartoon_faces.faces import Faces
from training.data.cartoon_faces.shapes import Float, covered

Int64 = npt.NDArray[np.int64]

UNITS = 64
"""A picture is so many units wide and high, however many pixels it has. All lengths are in units."""

Window = tuple[int, int, int, int]
"""Left, top, right, bottom in units: outside of it a stroke covers nothing."""

HEAD = ("face_size", "tilt", "age")
"""Global attributes that every stroke of the head belongs to."""

PIVOT = 10.5
"""A head turns and grows about a point so far below its middle, behind the mouth."""

OUTLINE = 0.6
"""The edge of a shape has so much of its colour's brightness."""
OUTLINE_WIDTH = 0.9


@dataclass(frozen=True)
class Stroke:
    """What is painted in one go on the faces `rows` (n,), within a window."""

    owners: tuple[str, ...]
    rows: Int64
    window: Window
    coverage: Float
    """(n, h, w) in 0 … 1."""
    colour: Float
    """(n, 3, 1, 1) or (n, 3, h, w), in 0 … 1."""


class Sheet:
    """The coordinates of every pixel's centre in a batch of faces, and their measures.

    x, y are the picture's units; u, v those of the head: upright, of usual size, 0 in its middle, v down.
    """

    def __init__(self, faces: Faces, size: int) -> None:
        self.faces = faces
        self.size = size
        self.everyone = np.arange(len(faces))
        self.pixel = np.full((len(faces), 1, 1), UNITS / size, np.float32)
        centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(UNITS / size)
        self.x = centres[None, None, :]
        self.y = centres[None, :, None]
        self.scale = column(faces.values["face_size"])
        self.age = column(faces.values["age"])
        tilt = column(np.deg2rad(faces.values["tilt"]))
        sine, cosine = np.sin(tilt), np.cos(tilt)
        self.body_x = 32.0 + 1.2 * self.vary("body_x")
        self.pivot_x = self.body_x + 0.8 * self.vary("head_x")
        self.pivot_y = 43.5 + 1.2 * self.vary("head_y")
        x, y = self.x - self.pivot_x, self.y - self.pivot_y
        self.u = (x * cosine + y * sine) / self.scale  # (N, size, size)
        self.v = (y * cosine - x * sine) / self.scale + PIVOT
        self.half_width = 14.3 - 0.9 * self.age + 0.4 * self.vary("head_aspect")
        self.half_height = 15.0 + 1.8 * self.age
        self.eye_u = 6.0 + 0.35 * self.vary("eye_spacing")
        self.eye_v = 1.8 - 3.6 * self.age
        self.mouth_v = 9.6 + 0.5 * self.age + 0.3 * self.vary("mouth_height")

    def vary(self, name: str) -> Float:
        """(N, 1, 1) in [-1, 1)."""
        return column(self.faces.variation(name))

    def rows(self, value: str) -> Int64:
        return np.flatnonzero(self.faces.has(value))

    def on_body(self, window: Window) -> tuple[Float, Float]:
        rows, columns = slices(window, self.size)
        return self.x[:, :, columns], self.y[:, rows, :]

    def on_head(self, window: Window, which: Int64 | None = None) -> tuple[Float, Float]:
        rows, columns = slices(window, self.size)
        if which is None:
            return self.u[:, rows, columns], self.v[:, rows, columns]
        return self.u[which, rows, columns], self.v[which, rows, columns]

    def of_body(self, owners: tuple[str, ...], window: Window, distance: Float, colour: Float) -> Stroke:
        """An outlined shape in the picture's coordinates."""
        return self._stroke(owners, self.everyone, window, distance, self.pixel, colour)

    def of_head(
        self,
        owners: tuple[str, ...],
        window: Window,
        distance: Float,
        colour: Float,
        which: Int64 | None = None,
        *,
        outline: float = OUTLINE,
    ) -> Stroke:
        """A shape in the head's coordinates, with an outline where `outline` is not 1."""
        which = self.everyone if which is None else which
        pixel = self.pixel[which] / self.scale[which]
        return self._stroke((*HEAD, *owners), which, window, distance, pixel, colour, outline)

    def _stroke(
        self,
        owners: tuple[str, ...],
        which: Int64,
        window: Window,
        distance: Float,
        pixel: Float,
        colour: Float,
        outline: float = OUTLINE,
    ) -> Stroke:
        colour = colour[:, :, None, None]
        if outline != 1.0:
            inner = covered(distance + OUTLINE_WIDTH, pixel)
            colour = colour * (outline + (1.0 - outline) * inner)[:, None]
        return Stroke(owners, which, window, covered(distance, pixel), colour)


def column(values: npt.NDArray[Any]) -> Float:
    """(N,) -> (N, 1, 1)."""
    return values.astype(np.float32)[:, None, None]


def slices(window: Window, size: int) -> tuple[slice, slice]:
    """The rows and the columns of the pixels that touch a window."""
    left, top, right, bottom = window
    return (
        slice(top * size // UNITS, -(-bottom * size // UNITS)),
        slice(left * size // UNITS, -(-right * size // UNITS)),
    )
