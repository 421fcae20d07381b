"""Pictures in rows and columns, for looking at a run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from model.transforms import Pixels, to_picture


def picture_grid(rows: Sequence[Pixels], *, scale: int = 2, gap: int = 2) -> Image.Image:
    """Rows of pixels (n, C, H, W) uint8 as one picture, `scale` times enlarged."""
    channels, height, width = rows[0].shape[1:]
    columns = max(len(row) for row in rows)
    canvas = np.full(
        (channels, len(rows) * (height + gap) + gap, columns * (width + gap) + gap), 255, np.uint8
    )
    for i, row in enumerate(rows):
        for j, pixels in enumerate(row):
            top, left = gap + i * (height + gap), gap + j * (width + gap)
            canvas[:, top : top + height, left : left + width] = pixels
    picture = to_picture(canvas)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
