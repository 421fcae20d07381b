"""From a picture to the network's input and back; training and serving both use exactly this."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from model.config import ImageConfig

Pixels = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

_MODES = {1: "L", 3: "RGB"}


def to_pixels(picture: Image.Image, config: ImageConfig) -> Pixels:
    """A picture as the model's uint8 pixels (C, H, W).

    The EXIF orientation is applied, colours become gray (ITU-R 601 luma) or RGB, and both sides
    are resized bicubically with antialiasing, without keeping the aspect ratio (as the paper does).
    """
    picture = ImageOps.exif_transpose(picture)
    mode = _MODES[config.channels]
    if picture.mode != mode:
        picture = picture.convert(mode)
    size = (config.width, config.height)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(picture, dtype=np.uint8)
    return np.ascontiguousarray(pixels.reshape(config.height, config.width, -1).transpose(2, 0, 1))


def to_x_0(pixels: Pixels) -> Float32:
    """uint8 pixels of any shape to float32 in [-1, 1]."""
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def from_x_0(x_0: Float32) -> Pixels:
    """float32 in [-1, 1] (clipped) to uint8 pixels of the same shape."""
    return np.asarray(np.round(np.clip(x_0, -1.0, 1.0) * 127.5 + 127.5), dtype=np.uint8)


def to_picture(pixels: Pixels) -> Image.Image:
    """uint8 pixels (C, H, W) as a gray or RGB picture."""
    channels = pixels.shape[0]
    return Image.fromarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0))


def crop(pixels: Pixels, box: Sequence[int]) -> Pixels:
    """The part of pixels (C, H, W) inside box (x0, y0, x1, y1), ends exclusive."""
    x0, y0, x1, y1 = (int(side) for side in box)
    return np.ascontiguousarray(pixels[:, y0:y1, x0:x1])
