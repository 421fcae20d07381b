"""Pictures as callers have them, and as they get them back."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

ImageLike = str | Path | bytes | Image.Image | npt.NDArray[np.uint8]
"""A path, an encoded PNG, JPEG or WebP file, a Pillow image, or pixels (H, W[, C]) with C of 1 or 3."""


class ImageId(str):
    """The image_id of an earlier encode or edit; it may stand where an image does."""

    __slots__ = ()


Source = ImageLike | ImageId


@dataclass(frozen=True)
class Picture:
    """A PNG file that the service sent; decoded when somebody looks at it."""

    png: bytes

    @classmethod
    def from_base64(cls, text: str) -> Picture:
        """Raises ValueError for text that is not base64."""
        return cls(base64.b64decode(text, validate=True))

    def to_pil(self) -> Image.Image:
        picture = Image.open(io.BytesIO(self.png))
        picture.load()
        return picture

    def to_numpy(self) -> npt.NDArray[np.uint8]:
        """Pixels (H, W) of a gray picture, (H, W, 3) of one in colour."""
        return np.asarray(self.to_pil())

    def save(self, path: str | Path) -> None:
        """Write the PNG file as it came."""
        Path(path).write_bytes(self.png)

    def _repr_png_(self) -> bytes:
        """For notebooks."""
        return self.png

    def __repr__(self) -> str:
        return f"Picture({len(self.png)} bytes of PNG)"


def to_file(image: ImageLike) -> bytes:
    """An image as the file that is sent. Raises OSError for a path, TypeError or ValueError for the rest."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        return Path(image).read_bytes()
    return _png(image if isinstance(image, Image.Image) else _picture(image))


def _picture(pixels: Any) -> Image.Image:
    if not isinstance(pixels, np.ndarray):
        raise TypeError(
            f"an image is a path, bytes, a PIL.Image or a NumPy array, not {type(pixels).__name__}"
        )
    if pixels.dtype != np.uint8:
        raise TypeError(f"pixels must be uint8 from 0 to 255, not {pixels.dtype}")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ValueError(f"pixels must be (H, W), (H, W, 1) or (H, W, 3), not {pixels.shape}")
    return Image.fromarray(pixels)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
