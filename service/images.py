"""Pictures that come from and go to clients: strict in what is read, exact in what is written."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io

import numpy as np
from PIL import Image

from model.config import ImageConfig
from model.transforms import Pixels, to_picture, to_pixels

FORMATS = ("PNG", "JPEG", "WEBP")
MIN_SIDE = 8
PNG_BIT_DEPTH = 24
"""Where a PNG file says how many bits a channel has."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_SIZE = (16, 20)
"""Where it says how wide and how high it is, four bytes each."""
QUICK_BYTES, QUICK_PIXELS = 2**15, 128 * 128

# Our own limit, checked before pixels are decoded, takes the place of Pillow's global one.
Image.MAX_IMAGE_PIXELS = None


class ImageError(ValueError):
    """An upload cannot be used as a picture; the message says why and what to do."""


class ImageTooLargeError(ImageError):
    """A picture has more pixels than the service decodes."""


def is_quick(data: bytes) -> bool:
    """Whether decoding takes no longer than handing it to another thread: a PNG of few bytes and pixels."""
    if len(data) > QUICK_BYTES or not data.startswith(PNG_SIGNATURE):
        return False
    width, height = (int.from_bytes(data[start : start + 4], "big") for start in PNG_SIZE)
    return width * height <= QUICK_PIXELS


def decode_image(data: bytes, config: ImageConfig, *, max_pixels: int) -> Pixels:
    """An encoded PNG, JPEG or WebP picture as the model's pixels (C, H, W).

    Raises ImageError for anything else, and for pictures whose meaning is not plain gray or RGB at
    8 bits: transparent, CMYK, 16-bit and animated ones.
    """
    if not data:
        raise ImageError("the image is empty")
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:
        raise ImageError("the image is not a readable PNG, JPEG or WebP file") from error
    with picture:
        width, height = picture.size
        if width * height > max_pixels:
            raise ImageTooLargeError(f"the image has {width}x{height} pixels, the limit is {max_pixels}")
        if min(width, height) < MIN_SIDE:
            raise ImageError(f"the image is {width}x{height}, each side must have at least {MIN_SIDE} pixels")
        # A JPEG with further frames is a photograph with its preview, not an animation.
        if picture.format in ("PNG", "WEBP") and getattr(picture, "n_frames", 1) > 1:
            raise ImageError("the image is animated: send one frame")
        if picture.mode not in ("1", "L", "P", "RGB", "LA", "RGBA"):
            raise ImageError(
                f"the image has colour mode {picture.mode}: convert it to 8-bit gray or RGB first"
            )
        if picture.format == "PNG" and data[PNG_BIT_DEPTH] == 16:  # Pillow cuts 16-bit RGB down silently
            raise ImageError("the image has 16 bits per channel: convert it to 8-bit gray or RGB first")
        try:
            picture.load()
            return to_pixels(_opaque(picture), config)
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(f"the image is damaged or incomplete: {error}"[:200]) from error


def _opaque(picture: Image.Image) -> Image.Image:
    """The picture, whose alpha may then be left out. Raises ImageError where it is transparent."""
    if not picture.has_transparency_data:
        return picture
    with_alpha = picture.convert("RGBA")
    if with_alpha.getchannel("A").getextrema()[0] != 255:
        raise ImageError("the image is transparent in places: flatten it onto a background first")
    return with_alpha


def decode_base64(text: str) -> bytes:
    """Bytes of a base64 string or `data:` URL. Raises ImageError."""
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise ImageError("the data: URL must be base64, such as data:image/png;base64,...")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"the image is not valid base64: {error}") from error


def encode_png(pixels: Pixels) -> bytes:
    """Pixels (C, H, W) as a PNG file."""
    buffer = io.BytesIO()
    to_picture(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def image_id(pixels: Pixels) -> str:
    """The sha256 of pixels as decoded and resized, in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def grid_png(images: list[Pixels]) -> bytes:
    """Several pictures of one shape in the squarest grid that holds them, as one PNG file."""
    columns = int(np.ceil(np.sqrt(len(images))))
    return filmstrip_png([images[start : start + columns] for start in range(0, len(images), columns)])


def filmstrip_png(rows: list[list[Pixels]]) -> bytes:
    """Rows of pictures of one shape as one PNG file, white where a row is shorter than the longest."""
    channels, height, width = rows[0][0].shape
    columns = max(len(row) for row in rows)
    canvas = np.full((channels, len(rows) * height, columns * width), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, pixels in enumerate(row):
            top, left = i * height, j * width
            canvas[:, top : top + height, left : left + width] = pixels
    return encode_png(canvas)
