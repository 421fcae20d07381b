"""Receptive-field arithmetic against what a stack of convolutions really looks at."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.config import paper_config
from model.receptive_field import receptive_field

STACKS = {
    "default": ((3, 3, 3, 3), (2, 1, 1, 1), (1, 0, 0, 0)),
    "chexpert": ((5, 5, 5, 5, 5), (2, 2, 1, 1, 1), (1, 1, 0, 0, 0)),
    "even kernels": ((2, 4), (2, 2), (0, 1)),
    "wide padding": ((3, 5), (1, 2), (2, 4)),
    "stride above kernel": ((2, 3), (3, 1), (0, 0)),
    "one pixel": ((1,), (1,), (0,)),
}
HEIGHT, WIDTH = 67, 75


@pytest.mark.parametrize("name", STACKS)
def test_boxes_are_where_gradients_reach(name: str) -> None:
    kernels, strides, paddings = STACKS[name]
    layers: list[nn.Module] = []
    for kernel, stride, padding in zip(kernels, strides, paddings, strict=True):
        convolution = nn.Conv2d(1, 1, kernel, stride=stride, padding=padding, bias=False)
        nn.init.ones_(convolution.weight)  # nothing cancels, so every pixel seen has a gradient
        layers.append(convolution.double())
    stack = nn.Sequential(*layers)
    x = torch.zeros(1, 1, HEIGHT, WIDTH, dtype=torch.float64, requires_grad=True)
    grid = stack(x)
    field = receptive_field(kernels, strides, paddings)
    assert tuple(grid.shape[2:]) == (field.grid_size(HEIGHT), field.grid_size(WIDTH))

    holes = any(stride > kernel for kernel, stride in zip(kernels, strides, strict=True))
    for cell in {0, 1, grid.shape[3] - 1, grid.shape[3], grid[0, 0].numel() // 2, grid[0, 0].numel() - 1}:
        (gradient,) = torch.autograd.grad(grid.flatten()[cell], x, retain_graph=True)
        rows, columns = gradient[0, 0].nonzero(as_tuple=True)
        x0, y0, x1, y1 = field.box(cell, HEIGHT, WIDTH)
        assert (x0, x1) == (int(columns.min()), int(columns.max()) + 1)
        assert (y0, y1) == (int(rows.min()), int(rows.max()) + 1)
        assert holes or len(rows) == (x1 - x0) * (y1 - y0)


def test_published_encoders_have_their_published_fields() -> None:
    default = receptive_field(*STACKS["default"])
    assert (default.size, default.jump) == (15, 2)
    assert (default.grid_size(32), default.grid_size(64)) == (10, 26)
    chexpert = receptive_field(*STACKS["chexpert"])
    assert (chexpert.size, chexpert.jump) == (61, 4)
    assert chexpert.grid_size(224) == 43
    assert paper_config(size=64).grid_shape == (26, 26)


def test_an_image_smaller_than_the_field_has_no_cell() -> None:
    assert receptive_field(*STACKS["default"]).grid_size(4) == 0


@pytest.mark.parametrize("cell", [-1, 100])
def test_cells_outside_the_grid_are_refused(cell: int) -> None:
    with pytest.raises(ValueError, match=f"grid cell {cell} is outside the 10x10 grid"):
        receptive_field(*STACKS["default"]).box(cell, 32, 32)


@pytest.mark.parametrize("layer", [(0, 1, 0), (3, 0, 0), (3, 1, -1), (3, 1, 3)])
def test_impossible_convolutions_are_refused(layer: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no such convolution"):
        receptive_field(*([value] for value in layer))
