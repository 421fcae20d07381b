from __future__ import annotations

import numpy as np
import pytest

from model.config import EncoderConfig, ImageConfig, ModelConfig, paper_config
from model.pixel_map import cell_centre, pixel_maps

CONFIGS = [
    paper_config(size=32),
    ModelConfig(
        image=ImageConfig(3, 64, 32),
        encoder=EncoderConfig(
            num_prototypes=4, kernel_sizes=(3, 3, 3, 2), strides=(2, 2, 1, 1), paddings=(1, 1, 0, 0)
        ),
    ),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_ramp_over_cell_centres_is_the_ramp_over_pixels(config: ModelConfig) -> None:
    rows, columns = config.grid_shape
    x, y = np.array([cell_centre(cell, config) for cell in range(rows * columns)]).T.reshape(2, rows, columns)
    maps = pixel_maps(np.stack([x, y]).astype(np.float32), config)
    image = config.image
    assert maps.shape == (2, image.height, image.width)
    inside_x = np.clip(np.arange(image.width), x.min(), x.max())
    inside_y = np.clip(np.arange(image.height), y.min(), y.max())
    np.testing.assert_allclose(maps[0], np.broadcast_to(inside_x, maps[0].shape), atol=1e-4)
    np.testing.assert_allclose(maps[1], np.broadcast_to(inside_y[:, None], maps[1].shape), atol=1e-4)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_centre_lies_in_the_middle_of_a_box_that_no_border_cuts(config: ModelConfig) -> None:
    rows, columns = config.grid_shape
    cell = rows // 2 * columns + columns // 2
    x0, y0, x1, y1 = config.receptive_field.box(cell, config.image.height, config.image.width)
    assert cell_centre(cell, config) == ((x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2)


def test_the_strongest_pixel_is_at_the_strongest_cell() -> None:
    config = CONFIGS[0]
    rows, columns = config.grid_shape
    maps = np.zeros((rows, columns), np.float32)
    maps[3, 5] = 1.0
    at = np.unravel_index(pixel_maps(maps, config).argmax(), config.image.shape[1:])
    x, y = cell_centre(3 * columns + 5, config)
    assert (abs(at[1] - x), abs(at[0] - y)) <= (0.5, 0.5)
