"""Pictures for people: what is where, and that text fits."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from service.drawing import Card, enlarged, montage, overlay, png, shortened, tile, with_box


@pytest.mark.parametrize("channels", [1, 3])
def test_heat_is_where_the_map_is_high(channels: int) -> None:
    pixels = np.full((channels, 16, 16), 90, np.uint8)
    pixel_map = np.zeros((16, 16), np.float32)
    pixel_map[2:6, 9:13] = 3.0
    shown = np.asarray(overlay(pixels, pixel_map, (0, 10, 6, 16)).convert("L"), float)
    assert shown.shape == (256, 256)
    assert shown[64, 176] > shown[64, 40] + 60


def test_a_flat_map_is_drawn_as_no_heat_at_all() -> None:
    pixels = np.full((3, 16, 16), 90, np.uint8)
    flat = overlay(pixels, np.full((16, 16), 5.0, np.float32), (0, 0, 16, 16))
    colours = np.asarray(flat)[4:-4, 4:-4].reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) == 1


def test_a_box_is_drawn_around_its_pixels() -> None:
    picture = enlarged(np.full((1, 8, 8), 90, np.uint8), 64)
    drawn = np.asarray(with_box(picture, (2, 1, 5, 3), (8, 8)))
    changed = np.argwhere((drawn != 90).any(axis=2))
    assert changed.min(axis=0).tolist() == [8, 16]
    assert changed.max(axis=0).tolist() == [23, 39]


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (7, 7, 8, 8), (0, 0, 8, 8)])
def test_boxes_of_one_pixel_and_of_all_are_drawn(box: tuple[int, int, int, int]) -> None:
    for side in (8, 64):
        picture = enlarged(np.full((1, 8, 8), 90, np.uint8), side)
        assert (np.asarray(with_box(picture, box, (8, 8))) == 0).any()


@pytest.mark.parametrize(("shape", "size"), [((1, 32, 32), (256, 256)), ((3, 300, 20), (20, 300))])
def test_small_pictures_are_enlarged_and_large_ones_left(
    shape: tuple[int, int, int], size: tuple[int, int]
) -> None:
    assert enlarged(np.zeros(shape, np.uint8), 256).size == size


@pytest.mark.parametrize("shape", [(1, 3, 5), (1, 96, 96), (3, 500, 20)])
def test_a_tile_is_square_whatever_it_shows(shape: tuple[int, int, int]) -> None:
    shown = np.asarray(tile(np.zeros(shape, np.uint8), 96))
    assert shown.shape == (96, 96, 3)
    rows, columns = (np.flatnonzero((shown < 64).any(axis=(axis, 2))) for axis in (1, 0))
    assert abs((rows[0] + rows[-1]) - 95) <= 1
    assert abs((columns[0] + columns[-1]) - 95) <= 1


@pytest.mark.parametrize("count", [1, 8, 30, 100])
def test_a_montage_of_many_has_room_for_all(count: int) -> None:
    colours = [((37 * i) % 256, (91 * i) % 256, 200) for i in range(count)]
    cards = [
        Card([f"{i}  name"], [Image.new("RGB", (96, 96), colour)] * 3) for i, colour in enumerate(colours)
    ]
    whole = Image.open(io.BytesIO(png(montage(cards))))
    assert 0.4 < whole.width / whole.height < 4
    seen = {colour for _, colour in whole.getcolors(maxcolors=2**20) or []}
    assert set(colours) <= seen


def test_text_is_cut_to_the_room_it_has() -> None:
    assert shortened("hem", 100) == "hem"
    for text in ("a" * 100, "名" * 100, "👗" * 100):
        cut = shortened(text, 100)
        assert cut.endswith("…")
        assert len(cut) < 100
    assert shortened("long", 0) == "…"
