"""Small pictures, and the image shape that most tests of data sets use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.config import ImageConfig
from model.transforms import Pixels, to_pixels

SavePicture = Callable[..., Pixels]


@pytest.fixture
def image() -> ImageConfig:
    return ImageConfig(channels=3, height=8, width=8)


@pytest.fixture
def save_picture(image: ImageConfig) -> SavePicture:
    """Saves a picture of its own for each seed; gives the pixels that the network shall see of it."""

    def save(path: Path, seed: int, *, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Pixels:
        shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
        array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        with Image.open(path) as picture:
            return to_pixels(picture, image)

    return save
