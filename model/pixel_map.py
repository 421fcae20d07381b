"""Similarity maps at the accuracy of pixels: where in the image a prototype is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model.config import ModelConfig

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def pixel_maps(similarity_maps: Float32, config: ModelConfig) -> Float32:
    """Maps (..., h, w) of the encoder's grid as (..., H, W): bilinear between the centres of the cells.

    A cell's centre is that of its receptive field, wherever strides and paddings put it; pixels beyond the
    outermost centres take their value.
    """
    rows, columns = config.grid_shape
    down = _weights(rows, config.image.height, config)  # (H, h)
    across = _weights(columns, config.image.width, config)  # (W, w)
    return np.asarray(down @ similarity_maps.astype(np.float64) @ across.T, dtype=np.float32)


def cell_centre(cell: int, config: ModelConfig) -> tuple[float, float]:
    """(x, y) of a flat grid cell's centre in pixels, where the middle of the first pixel is 0."""
    row, column = divmod(cell, config.grid_shape[1])
    return (
        float(_centres(config.grid_shape[1], config)[column]),
        float(_centres(config.grid_shape[0], config)[row]),
    )


def _centres(cells: int, config: ModelConfig) -> Float64:
    field = config.receptive_field
    return np.asarray(field.offset + (field.size - 1) / 2.0 + field.jump * np.arange(cells))


def _weights(cells: int, pixels: int, config: ModelConfig) -> Float64:
    """(pixels, cells): what each cell contributes to each pixel of one axis; rows add up to 1."""
    places = np.interp(np.arange(pixels), _centres(cells, config), np.arange(cells))
    return np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(cells)))
