"""Draw docs/cartoon_faces.png, the data set in one picture: `python docs/draw_cartoon_faces.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from model.transforms import Pixels
from training.data.cartoon_faces import changed_pixels, render, sample_faces
from training.picture_grid import picture_grid

PATH = Path(__file__).parent / "cartoon_faces.png"
SCALE, GAP, LABEL = 2, 3, 26
PLAIN = (
    ("hair_colour", "black_hair"),
    ("hair_style", "short_hair"),
    ("smile", "no_smile"),
    ("glasses", "no_glasses"),
    ("hat", "no_hat"),
    ("moustache", "no_moustache"),
    ("earrings", "no_earrings"),
    ("collar_colour", "blue_collar"),
    ("skin_tone", "light_skin"),
    ("tilt", "tilted_right"),
    ("lighting", "bright_light"),
)
CHANGES = (
    ("hair_colour", "fair_hair"),
    ("hair_style", "curly_hair"),
    ("smile", "smile"),
    ("glasses", "glasses"),
    ("hat", "hat"),
    ("moustache", "moustache"),
    ("earrings", "earrings"),
    ("collar_colour", "red_collar"),
    ("skin_tone", "brown_skin"),
    ("tilt", "tilted_left"),
)


def draw(seed: int = 2, num_rows: int = 2) -> None:
    """Rows of sampled faces; then a plain one with one attribute changed, and the pixels that change."""
    columns = 1 + len(CHANGES)
    sampled = render(sample_faces(seed, num_rows * columns))
    plain = sample_faces(seed, 1)
    for attribute, value in PLAIN:
        plain = plain.with_value(attribute, value)
    changed = [plain.with_value(attribute, value) for attribute, value in CHANGES]
    pictures = np.concatenate([render(one) for one in (plain, *changed)])
    where = np.concatenate([changed_pixels(plain, one) for one in (plain, *changed)])
    rows = [*sampled.reshape(num_rows, columns, *sampled.shape[1:]), pictures, _marked(pictures, where)]
    _with_labels(picture_grid(rows, scale=SCALE, gap=GAP), ("a face", *(value for _, value in CHANGES)))


def _marked(pictures: Pixels, where: npt.NDArray[np.bool_]) -> Pixels:
    """The pictures (n, 3, H, W) in pale gray, with the pixels `where` (n, H, W) as they are."""
    gray = pictures.mean(axis=1, keepdims=True) * 0.3 + 170.0
    return np.where(where[:, None], pictures, gray).astype(np.uint8)


def _with_labels(grid: Image.Image, names: tuple[str, ...]) -> None:
    canvas = Image.new("RGB", (grid.width, grid.height + LABEL), "white")
    canvas.paste(grid, (0, 0))
    text = ImageDraw.Draw(canvas)
    width = (grid.width - SCALE * GAP) / len(names)
    font = ImageFont.load_default(size=18)
    for column, name in enumerate(names):
        middle = SCALE * GAP / 2 + (column + 0.5) * width
        text.text((middle, grid.height), name.replace("_", " "), "black", font, anchor="ma")
    # A palette halves the file.
    canvas.quantize(256, kmeans=4, dither=Image.Dither.NONE).save(PATH, optimize=True)


if __name__ == "__main__":
    draw()
