from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from model.config import ImageConfig
from model.transforms import from_x_0, to_picture, to_pixels, to_x_0

GRAY = ImageConfig(channels=1, height=32, width=32)
RGB = ImageConfig(channels=3, height=32, width=32)
ORIENTATION = 0x0112


def picture(mode: str = "L", size: tuple[int, int] = (28, 28)) -> Image.Image:
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels, mode=None)


def reopened(image: Image.Image, **options: object) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return Image.open(io.BytesIO(file.getvalue()))


def test_a_picture_and_its_png_give_the_same_pixels() -> None:
    np.testing.assert_array_equal(to_pixels(picture(), GRAY), to_pixels(reopened(picture()), GRAY))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("config", [GRAY, RGB])
def test_any_colours_become_the_models(mode: str, config: ImageConfig) -> None:
    pixels = to_pixels(picture(mode), config)
    assert pixels.shape == config.shape
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


def test_gray_pictures_become_equal_colours() -> None:
    pixels = to_pixels(picture("L"), RGB)
    np.testing.assert_array_equal(pixels[0], pixels[1])
    np.testing.assert_array_equal(pixels[0], pixels[2])


def test_colours_become_gray_by_luma() -> None:
    red = Image.new("RGB", (32, 32), (255, 0, 0))
    assert set(to_pixels(red, GRAY).ravel().tolist()) == {76}  # 0.299 * 255


def test_pictures_of_the_right_size_are_not_resampled() -> None:
    image = picture(size=(32, 32))
    np.testing.assert_array_equal(to_pixels(image, GRAY)[0], np.asarray(image))


def test_both_sides_are_resized_without_keeping_the_aspect_ratio() -> None:
    config = ImageConfig(channels=1, height=16, width=24)
    assert to_pixels(picture(size=(100, 50)), config).shape == (1, 16, 24)


def test_exif_orientation_is_applied() -> None:
    upright = picture("RGB", (32, 32))
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # the camera was turned: show the stored picture turned by 90 degrees clockwise
    stored = reopened(upright.rotate(90, expand=True), exif=exif)
    np.testing.assert_array_equal(to_pixels(stored, RGB), to_pixels(upright, RGB))


def test_all_pixel_values_survive_the_network_range() -> None:
    pixels = np.arange(256, dtype=np.uint8)
    x_0 = to_x_0(pixels)
    assert x_0.dtype == np.float32
    assert (x_0.min(), x_0.max()) == (-1.0, 1.0)
    np.testing.assert_array_equal(from_x_0(x_0), pixels)


def test_values_outside_the_range_are_clipped() -> None:
    np.testing.assert_array_equal(from_x_0(np.array([-7.0, 7.0], np.float32)), [0, 255])


@pytest.mark.parametrize("config", [GRAY, RGB])
def test_pixels_survive_being_a_picture(config: ImageConfig) -> None:
    pixels = to_pixels(picture("RGB"), config)
    np.testing.assert_array_equal(to_pixels(to_picture(pixels), config), pixels)
