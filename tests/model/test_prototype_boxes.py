"""Where prototypes look, against what really moves their similarity maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from model.config import DenoiserConfig, EncoderConfig, ImageConfig, ModelConfig, small_config
from model.encoder import PrototypeEncoder
from model.prototype_boxes import PrototypeBoxes, wide_index
from training.presets import PRESETS

STACKS = {
    "default": ((3, 3, 3, 3), (2, 1, 1, 1), (1, 0, 0, 0)),
    "cartoon faces": ((3, 3, 3, 2), (2, 2, 1, 1), (1, 1, 0, 0)),
    "even kernels": ((2, 4), (2, 2), (0, 1)),
}


def config_of(stack: str, height: int = 44, width: int = 57) -> ModelConfig:
    kernels, strides, paddings = STACKS[stack]
    encoder = EncoderConfig(
        num_prototypes=5,
        kernel_sizes=kernels,
        channels=(6,) * len(kernels),
        strides=strides,
        paddings=paddings,
        num_wide_prototypes=2,
        num_global_prototypes=1,
    )
    denoiser = DenoiserConfig(channel_multipliers=(1,), attention_levels=(False,))  # any image size
    return ModelConfig(image=ImageConfig(1, height, width), encoder=encoder, denoiser=denoiser)


def positive_encoder(config: ModelConfig) -> PrototypeEncoder:
    """No weight is negative and no ReLU silent: every pixel seen moves a feature, and nothing cancels."""
    torch.manual_seed(0)
    encoder = PrototypeEncoder(config.encoder, 1).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.abs_().add_(0.01)
    return encoder


def reached(gradient: torch.Tensor) -> tuple[int, int, int, int]:
    rows, columns = gradient.nonzero(as_tuple=True)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("j", [0, 2, 3], ids=["local", "wide", "another wide"])
def test_a_box_holds_exactly_the_pixels_that_move_its_cell(stack: str, j: int) -> None:
    config = config_of(stack)
    encoder, boxes = positive_encoder(config), PrototypeBoxes(config)
    x = torch.ones(1, 1, 44, 57, dtype=torch.float64, requires_grad=True)
    features = encoder.features(x)
    by_scale = encoder.features_by_scale(features)
    rows, columns = config.grid_shape
    assert features.shape[2:] == (rows, columns)
    last = rows * columns - 1
    for cell in {0, 1, columns - 1, columns, columns + 1, last // 2, last - columns, last}:
        row, column = divmod(cell, columns)
        scale = boxes.scales[j]
        if scale == "wide":
            row, column = wide_index(row), wide_index(column)
        value = by_scale[scale][0, :, row, column].sum()
        (gradient,) = torch.autograd.grad(value, x, retain_graph=True)
        assert reached(gradient[0, 0]) == boxes.box(j, cell)
        x0, y0, x1, y1 = boxes.box(j, cell)
        assert int((gradient != 0).sum()) == (x1 - x0) * (y1 - y0)


@pytest.mark.parametrize("stack", STACKS)
def test_pixels_outside_a_box_do_not_move_the_map_and_pixels_at_its_rim_do(stack: str) -> None:
    config = config_of(stack)
    encoder, boxes = positive_encoder(config), PrototypeBoxes(config)
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(1, 1, 44, 57, generator=generator, dtype=torch.float64)

    def distances(image: torch.Tensor) -> torch.Tensor:
        # in float64, which `distances` would leave: a rim moves a wide feature very little
        features = encoder.features_by_scale(encoder.features(image))["wide"]
        return features.square().sum(dim=1)[0]

    rows, columns = config.grid_shape
    with torch.no_grad():
        before = distances(x)
        for cell in {0, columns + 3, rows * columns // 2, rows * columns - 1}:
            x0, y0, x1, y1 = boxes.box(2, cell)
            row, column = wide_index(cell // columns), wide_index(cell % columns)
            outside = torch.ones_like(x, dtype=torch.bool)
            outside[:, :, y0:y1, x0:x1] = False
            if outside.any():
                assert distances(torch.where(outside, 0.3, x))[row, column] == before[row, column]
            for corner in ((y0, x0), (y0, x1 - 1), (y1 - 1, x0), (y1 - 1, x1 - 1)):
                touched = x.clone()
                touched[0, 0, *corner] += 0.5
                assert distances(touched)[row, column] != before[row, column]


def test_a_global_box_is_the_whole_image_at_every_cell() -> None:
    config = config_of("default")
    cells = math.prod(config.grid_shape)
    assert np.unique(PrototypeBoxes(config).at(4, np.arange(cells)), axis=0).tolist() == [[0, 0, 57, 44]]


def test_a_map_shows_at_every_cell_the_wide_patch_whose_centre_is_nearest() -> None:
    config = config_of("default", height=41, width=50)
    torch.manual_seed(0)
    encoder, boxes = PrototypeEncoder(config.encoder, 1), PrototypeBoxes(config)
    with torch.no_grad():
        features = encoder.features(torch.rand(1, 1, 41, 50))
        distances = encoder.distances(features)[0]
        wide = encoder.features_by_scale(features)["wide"][0]  # (D, h', w')
    local, field = config.receptive_field, config.encoder.receptive_field("wide")

    def centre(receptive_field: object, index: int) -> float:
        assert isinstance(receptive_field, type(local))
        return receptive_field.offset + index * receptive_field.jump + (receptive_field.size - 1) / 2

    for axis, index in ((1, 0), (1, 3), (2, 5), (2, distances.shape[2] - 1), (1, distances.shape[1] - 1)):
        gaps = [abs(centre(field, k) - centre(local, index)) for k in range(wide.shape[axis])]
        assert gaps[wide_index(index)] == min(gaps)
    for row in range(distances.shape[1]):
        for column in range(distances.shape[2]):
            feature = wide[:, wide_index(row), wide_index(column)]
            expected = (feature - encoder.prototypes[2]).square().mean()
            assert distances[2, row, column].item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    assert boxes.scales == ("local", "local", "wide", "wide", "global")


def test_without_other_scales_boxes_are_the_receptive_fields() -> None:
    config = small_config()
    boxes = PrototypeBoxes(config)
    assert set(boxes.scales) == {"local"}
    for cell in range(math.prod(config.grid_shape)):
        assert boxes.box(7, cell) == config.receptive_field.box(cell, 32, 32)


def test_arrays_of_prototypes_and_cells_are_broadcast() -> None:
    config = config_of("default")
    boxes = PrototypeBoxes(config)
    cells = np.array([[3, 4, 5, 6, 7], [9, 8, 7, 6, 5]])
    found = boxes.at(np.arange(5), cells)
    assert found.shape == (2, 5, 4)
    assert [[tuple(box) for box in row] for row in found.tolist()] == [
        [boxes.box(j, int(cell)) for j, cell in enumerate(row)] for row in cells
    ]


@pytest.mark.parametrize(("j", "cell"), [(5, 0), (-1, 0), (0, -1), (0, 10_000)])
def test_prototypes_and_cells_that_there_are_not_are_refused(j: int, cell: int) -> None:
    with pytest.raises(IndexError, match="must be 0 to"):
        PrototypeBoxes(config_of("default")).box(j, cell)


@pytest.mark.parametrize("name", ["small", "small-cartoon-faces", "paper-celeba"])
def test_wide_patches_are_more_than_twice_and_less_than_thrice_as_wide(name: str) -> None:
    encoder = PRESETS[name].model.encoder
    ratio = encoder.receptive_field("wide").size / encoder.receptive_field("local").size
    assert 2.0 <= ratio < 3.0
    assert encoder.receptive_field("wide").jump == 2 * encoder.receptive_field("local").jump
