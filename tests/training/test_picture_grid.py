from __future__ import annotations

import numpy as np

from training.picture_grid import picture_grid


def test_rows_of_any_length_stand_on_white() -> None:
    black = np.zeros((3, 1, 4, 5), np.uint8)
    picture = picture_grid([black, black[:1]], scale=2, gap=1)
    assert picture.size == (2 * (3 * 6 + 1), 2 * (2 * 5 + 1))
    pixels = np.asarray(picture)[::2, ::2]
    assert (pixels[1:5, 1:6] == 0).all()
    assert (pixels[6:10, 7:] == 255).all()
    assert int((pixels == 0).sum()) == 4 * 4 * 5


def test_colours_stay_colours() -> None:
    red = np.zeros((1, 3, 4, 4), np.uint8)
    red[:, 0] = 255
    assert picture_grid([red]).getpixel((6, 6)) == (255, 0, 0)
