"""Uploads become the model's pixels, or are refused with the reason."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.config import ImageConfig
from service.images import (
    ImageError,
    ImageTooLargeError,
    decode_base64,
    decode_image,
    encode_png,
    grid_png,
    image_id,
    to_base64,
)

Pixels = npt.NDArray[np.uint8]

GRAY = ImageConfig(1, 32, 32)
COLOUR = ImageConfig(3, 32, 32)
MAX_PIXELS = 1_000_000


def decoded(data: bytes, config: ImageConfig = GRAY) -> Pixels:
    return decode_image(data, config, max_pixels=MAX_PIXELS)


def file_of(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(mode: str = "L", size: tuple[int, int] = (32, 32)) -> Image.Image:
    """A smooth picture, which lossy formats keep nearly as it is."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    channels = np.stack([255 * x, 255 * y, 255 * (1 - x)], axis=-1).astype(np.uint8)
    return Image.fromarray(channels).convert(mode)


def png_of(bit_depth: int, colour_type: int, bytes_per_pixel: int, size: int = 16) -> bytes:
    """A black PNG written by hand, for what Pillow does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", size, size, bit_depth, colour_type, 0, 0, 0)
    rows = (b"\0" + b"\0" * (bytes_per_pixel * size)) * size
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


# --- What is read


@pytest.mark.parametrize("config", [GRAY, COLOUR])
def test_png_of_pixels_reads_as_the_same_pixels(config: ImageConfig) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, config.shape, dtype=np.uint8)
    np.testing.assert_array_equal(decoded(encode_png(pixels), config), pixels)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(("config", "mode"), [(GRAY, "L"), (COLOUR, "RGB")])
def test_each_format_is_read(kind: str, config: ImageConfig, mode: str) -> None:
    picture = photograph(mode)
    pixels = decoded(file_of(picture, kind, quality=95), config)
    assert pixels.shape == config.shape
    assert pixels.dtype == np.uint8
    expected = np.asarray(picture).reshape(32, 32, -1).transpose(2, 0, 1).astype(int)
    assert np.abs(pixels - expected).mean() < 3.0


def test_lossless_webp_reads_exactly() -> None:
    picture = photograph("RGB")
    pixels = decoded(file_of(picture, "WEBP", lossless=True), COLOUR)
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0), np.asarray(picture))


@pytest.mark.parametrize("size", [(8, 8), (300, 40), (31, 33), (1000, 1000)])
def test_picture_of_any_size_is_resized_to_the_models(size: tuple[int, int]) -> None:
    pixels = decoded(file_of(photograph("L", size)))
    assert pixels.shape == (1, 32, 32)
    assert np.abs(pixels[0].astype(int) - np.asarray(photograph("L"))).mean() < 8.0


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_plain_colour_modes_are_read_as_they_look(mode: str) -> None:
    picture = photograph("RGB").convert(mode)
    np.testing.assert_array_equal(
        decoded(file_of(picture), COLOUR).transpose(1, 2, 0), np.asarray(picture.convert("RGB"))
    )


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_opaque_alpha_is_accepted_and_left_out(mode: str, kind: str) -> None:
    picture = photograph("RGB")
    with_alpha = picture.convert(mode)
    expected = with_alpha.convert("RGB")
    pixels = decoded(file_of(with_alpha, kind, lossless=True), COLOUR)
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0), np.asarray(expected))


def test_palette_with_opaque_alpha_is_accepted() -> None:
    picture = photograph("RGB").quantize(16)
    data = file_of(picture, transparency=b"\xff" * 16)
    pixels = decoded(data, COLOUR)
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize(("orientation", "turned"), [(3, 2), (6, -1), (8, 1)])
def test_exif_orientation_is_applied(orientation: int, turned: int) -> None:
    picture = photograph("L")
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decoded(file_of(picture, "PNG", exif=exif))
    np.testing.assert_array_equal(pixels[0], np.rot90(np.asarray(picture), turned))


def test_jpeg_with_a_preview_frame_is_a_photograph() -> None:
    data = file_of(photograph("RGB"), "MPO", save_all=True, append_images=[photograph("RGB", (16, 16))])
    assert decoded(data, COLOUR).shape == (3, 32, 32)


# --- What is refused


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.3, 0.6, 0.9])
def test_truncated_file_is_refused(kind: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    data = file_of(Image.fromarray(noise), kind)
    with pytest.raises(ImageError, match=r"^the image is "):
        decoded(data[: int(len(data) * kept)])


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7"]
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"empty|not a readable PNG, JPEG or WebP"):
        decoded(data)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(ImageError, match="not a readable PNG, JPEG or WebP"):
        decoded(file_of(photograph("L"), kind))


@pytest.mark.parametrize("size", [(1, 1), (7, 100), (100, 7)])
def test_picture_too_small_to_mean_anything_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"{size[0]}x{size[1]}, each side must have at least 8"):
        decoded(file_of(Image.new("L", size)))


def test_transparent_picture_is_refused() -> None:
    picture = photograph("RGBA")
    picture.putpixel((3, 3), (0, 0, 0, 254))
    for kind in ("PNG", "WEBP"):
        with pytest.raises(ImageError, match="transparent in places"):
            decoded(file_of(picture, kind, lossless=True))


def test_gray_picture_with_alpha_that_is_transparent_is_refused() -> None:
    with pytest.raises(ImageError, match="transparent in places"):
        decoded(file_of(Image.new("LA", (16, 16), (100, 0))))


@pytest.mark.parametrize(
    ("picture", "transparency"),
    [
        (Image.new("P", (16, 16), 0), 0),
        (Image.new("P", (16, 16), 0), b"\x80"),
        (Image.new("L", (16, 16), 7), 7),
        (Image.new("1", (16, 16), 1), 255),
        (Image.new("RGB", (16, 16), (1, 2, 3)), (1, 2, 3)),
    ],
)
def test_picture_with_a_transparent_colour_is_refused(picture: Image.Image, transparency: object) -> None:
    with pytest.raises(ImageError, match="transparent in places"):
        decoded(file_of(picture, transparency=transparency))


def test_cmyk_jpeg_is_refused() -> None:
    with pytest.raises(ImageError, match="colour mode CMYK: convert it"):
        decoded(file_of(photograph("RGB").convert("CMYK"), "JPEG"))


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_png_is_refused(colour_type: int, channels: int) -> None:
    with pytest.raises(ImageError, match="convert it to 8-bit"):
        decoded(png_of(16, colour_type, 2 * channels))


def test_png_written_by_hand_is_read_at_8_bits() -> None:
    assert decoded(png_of(8, 2, 3), COLOUR).max() == 0


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animated_picture_is_refused(kind: str) -> None:
    frames = [Image.new("L", (16, 16), shade) for shade in (0, 100, 200)]
    data = file_of(frames[0].convert("RGB"), kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="animated"):
        decoded(data)


def test_picture_at_the_limit_of_pixels_is_read_and_one_beyond_is_not() -> None:
    data = file_of(Image.new("L", (20, 10)))
    assert decode_image(data, GRAY, max_pixels=200).shape == (1, 32, 32)
    with pytest.raises(ImageTooLargeError, match="20x10 pixels, the limit is 199"):
        decode_image(data, GRAY, max_pixels=199)


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    promise = bytearray(png_of(8, 0, 1))
    promise[16:24] = struct.pack(">II", 2**30, 2**30)  # a header that promises 2**60 pixels
    promise[29:33] = struct.pack(">I", zlib.crc32(promise[12:29]))
    with pytest.raises(ImageTooLargeError, match="1073741824x1073741824"):
        decoded(bytes(promise))


@given(st.binary(max_size=200), st.sampled_from(["PNG", "JPEG", "WEBP"]), st.integers(0, 2000), st.booleans())
def test_damage_of_any_kind_is_an_image_error_or_a_picture(
    noise: bytes, kind: str, where: int, replaces: bool
) -> None:
    whole = file_of(photograph("RGB"), kind)
    where %= len(whole)
    rest = whole[where + len(noise) :] if replaces else whole[where:]
    try:
        shape = decoded(whole[:where] + noise + rest).shape
    except ImageError:
        return
    assert shape == GRAY.shape


# --- Base64, names and grids


@given(st.binary(max_size=300))
def test_base64_comes_back_as_it_was(data: bytes) -> None:
    assert decode_base64(to_base64(data)) == data
    assert decode_base64("data:image/png;base64," + to_base64(data)) == data


def test_line_breaks_in_base64_are_left_out() -> None:
    data = bytes(range(200))
    assert decode_base64(base64.encodebytes(data).decode()) == data


@pytest.mark.parametrize("text", ["a", "abc", "ab=c", "*###", "schön", "🦆🦆🦆🦆", "data:image/png;base64,a"])
def test_bad_base64_is_refused(text: str) -> None:
    with pytest.raises(ImageError, match="not valid base64"):
        decode_base64(text)


@pytest.mark.parametrize("text", ["data:", "data:image/png;base64", "data:image/png,abcd", "data:,abcd"])
def test_data_url_that_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(ImageError, match="data: URL must be base64"):
        decode_base64(text)


def test_image_id_is_the_hash_of_the_pixels_whatever_their_layout() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, COLOUR.shape, dtype=np.uint8)
    assert image_id(pixels) == hashlib.sha256(pixels.tobytes()).hexdigest()
    assert image_id(np.asfortranarray(pixels)) == image_id(pixels)
    assert image_id(255 - pixels) != image_id(pixels)


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (4, 2, 2), (5, 3, 2), (7, 3, 3)]
)
def test_grid_holds_all_pictures_in_reading_order(count: int, columns: int, rows: int) -> None:
    images = [np.full((1, 4, 6), 10 * i, np.uint8) for i in range(count)]
    with Image.open(io.BytesIO(grid_png(images))) as picture:
        canvas = np.asarray(picture)
    assert canvas.shape == (4 * rows, 6 * columns)
    cells = canvas.reshape(rows, 4, columns, 6).transpose(0, 2, 1, 3).reshape(-1, 4, 6)
    for i, cell in enumerate(cells):
        assert (cell == (10 * i if i < count else 255)).all()
