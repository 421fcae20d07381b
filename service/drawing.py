"""Pictures for people to look at: enlarged, with heat maps and boxes, and labelled montages of them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from model.receptive_field import Box
from model.transforms import Pixels, to_picture
from service.heat_colours import heat_colours

OVERLAY_SIDE = 256
"""Pictures smaller than this are enlarged by the largest whole number that keeps them within it."""
STRIP_SIDE, STRIP_COLUMNS = 128, 16
GAP = 8
FONT_SIZE = 13
LINE_HEIGHT = 17
INK, PAPER, MARGIN = (20, 20, 20), (255, 255, 255), (226, 226, 226)


@dataclass(frozen=True, eq=False)
class Card:
    """Pictures side by side under a few lines of text."""

    lines: Sequence[str]
    pictures: Sequence[Image.Image]


def overlay(pixels: Pixels, pixel_map: npt.NDArray[np.float32], box: Box) -> Image.Image:
    """pixels (C, H, W) enlarged, under the heat of a map (H, W), with a box drawn.

    The colours span the map's own range; the less there is, the more of the picture is seen.
    """
    picture = enlarged(pixels, OVERLAY_SIDE)
    low, high = float(pixel_map.min()), float(pixel_map.max())
    levels = (pixel_map - low) / max(high - low, 1e-6)
    smooth = Image.fromarray(levels.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
    level = np.asarray(smooth)
    share = (0.15 + 0.55 * level)[..., None]
    blended = np.asarray(picture) * (1.0 - share) + heat_colours(level) * share
    return with_box(Image.fromarray(np.round(blended).astype(np.uint8)), box, pixels.shape[1:])


def enlarged(pixels: Pixels, side: int) -> Image.Image:
    """pixels (C, H, W) as RGB, each a square: as many times as large as fits into `side`, but not smaller."""
    picture = to_picture(pixels).convert("RGB")
    factor = max(1, side // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def tile(pixels: Pixels, side: int, box: Box | None = None) -> Image.Image:
    """pixels (C, H, W), scaled to fit into a square of `side`, in its middle; their box drawn."""
    picture = enlarged(pixels, side)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    if box is not None:
        picture = with_box(picture, box, pixels.shape[1:])
    square = Image.new("RGB", (side, side), MARGIN)
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def with_box(picture: Image.Image, box: Box, shape: Sequence[int]) -> Image.Image:
    """An RGB picture with the outline of a box in pixels of what it shows, `shape` (H, W); white in black."""
    drawn = picture.copy()
    draw = ImageDraw.Draw(drawn)
    down, across = drawn.height / shape[0], drawn.width / shape[1]
    x0, y0 = int(box[0] * across), int(box[1] * down)
    x1, y1 = max(x0, int(box[2] * across) - 1), max(y0, int(box[3] * down) - 1)
    draw.rectangle((x0, y0, x1, y1), outline=(0, 0, 0), width=1)
    if x1 - x0 > 4 and y1 - y0 > 4:
        draw.rectangle((x0 + 1, y0 + 1, x1 - 1, y1 - 1), outline=(255, 255, 255), width=1)
    return drawn


def montage(cards: Sequence[Card], *, title: str = "", columns: int | None = None) -> Image.Image:
    """Cards of pictures of one size in rows of `columns`, under a title; by default, so that the whole is
    about as high as it is wide."""
    sizes = [picture.size for card in cards for picture in card.pictures]
    across = max(len(card.pictures) for card in cards)
    width = across * max(size[0] for size in sizes) + (across - 1) * (GAP // 2)
    text_height = LINE_HEIGHT * max(len(card.lines) for card in cards)
    height = text_height + max(size[1] for size in sizes)
    if columns is None:
        columns = max(1, round(math.sqrt(len(cards) * (height + GAP) / (width + GAP))))
    columns = min(columns, len(cards))
    rows = math.ceil(len(cards) / columns)
    title_height = LINE_HEIGHT + GAP if title else 0
    size = (columns * (width + GAP) + GAP, title_height + rows * (height + GAP) + GAP)
    whole = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(whole)
    draw.text((GAP, GAP), shortened(title, whole.width - 2 * GAP), fill=INK, font=_font())
    for i, card in enumerate(cards):
        left = GAP + (i % columns) * (width + GAP)
        top = title_height + GAP + (i // columns) * (height + GAP)
        for k, line in enumerate(card.lines):
            draw.text((left, top + k * LINE_HEIGHT), shortened(line, width), fill=INK, font=_font())
        x = left
        for picture in card.pictures:
            whole.paste(picture, (x, top + text_height))
            x += picture.width + GAP // 2
    return whole


def strip(cards: Sequence[Card], *, title: str = "") -> bytes:
    """A series side by side, STRIP_COLUMNS in a row, as a PNG file."""
    return png(montage(cards, title=title, columns=STRIP_COLUMNS))


def shortened(text: str, width: int) -> str:
    """As much of a line as is at most `width` pixels wide."""
    if _font().getlength(text) <= width:
        return text
    kept = text
    while kept and _font().getlength(kept + "…") > width:
        kept = kept[:-1]
    return kept.rstrip() + "…"


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own, which needs no file of the machine; what it lacks are scripts other than Latin."""
    return ImageFont.load_default(size=FONT_SIZE)
