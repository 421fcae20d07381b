from __future__ import annotations

import math

import pytest
import torch

from model.config import Distance, EncoderConfig
from model.encoder import PrototypeEncoder, similarity

WIDTH = 128


def encoder(distance: Distance = "sum", num_prototypes: int = 5) -> PrototypeEncoder:
    torch.manual_seed(0)
    return PrototypeEncoder(EncoderConfig(num_prototypes=num_prototypes, distance=distance), 1)


@pytest.mark.parametrize(("distance", "divisor"), [("sum", 1), ("mean", WIDTH)])
def test_distances_are_squared_euclidean(distance: Distance, divisor: int) -> None:
    module = encoder(distance)
    features = torch.rand(3, WIDTH, 4, 6)
    patches = features.permute(0, 2, 3, 1).reshape(-1, WIDTH).double()
    expected = torch.cdist(patches, module.prototypes.double()).square() / divisor
    found = module.distances(features)
    assert found.shape == (3, 5, 4, 6)
    torch.testing.assert_close(
        found.permute(0, 2, 3, 1).reshape(-1, 5), expected.float(), rtol=1e-4, atol=1e-4
    )


def test_distances_never_fall_below_zero() -> None:
    module = encoder(num_prototypes=64)
    on_prototypes = module.prototypes.detach().T[None, :, :, None] * 100  # (1, D, 64, 1)
    with torch.no_grad():
        module.prototypes.mul_(100)
        distances = module.distances(on_prototypes)
    assert bool((distances >= 0).all())
    # The expanded form alone does fall below zero here, so the floor is what this test sees.
    squares = module.prototypes.square().sum(1)
    expanded = squares[:, None] - 2 * module.prototypes @ module.prototypes.T + squares[None, :]
    assert bool((expanded.diagonal() < 0).any())


def test_similarity_is_greatest_on_the_prototype_and_fades_with_distance() -> None:
    values = similarity(torch.tensor([0.0, 0.01, 1.0, 1e6]))
    assert values[0].item() == pytest.approx(math.log(1e4), rel=1e-6)
    assert bool((values.diff() < 0).all())
    assert values[-1].item() == pytest.approx(0.0, abs=1e-5)


def test_activations_are_the_best_of_the_similarity_map() -> None:
    module = encoder()
    activations, maps = module(torch.rand(2, 1, 32, 32) * 2 - 1)
    assert activations.shape == (2, 5)
    assert maps.shape == (2, 5, 10, 10)
    torch.testing.assert_close(activations, maps.amax(dim=(2, 3)))


def test_distances_stay_in_float32_under_autocast() -> None:
    module = encoder()
    features = torch.rand(1, WIDTH, 2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module.distances(features)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, module.distances(features))


def test_maps_of_wide_and_global_prototypes_have_the_grid_of_the_local_ones() -> None:
    torch.manual_seed(0)
    config = EncoderConfig(num_prototypes=6, num_wide_prototypes=2, num_global_prototypes=1)
    module = PrototypeEncoder(config, 1)
    activations, maps = module(torch.rand(2, 1, 32, 32) * 2 - 1)
    assert module.prototypes.shape == (6, WIDTH)
    assert activations.shape == (2, 6)
    assert maps.shape == (2, 6, 10, 10)
    torch.testing.assert_close(activations, maps.amax(dim=(2, 3)))
    assert torch.equal(maps[:, 3:5, 0::2, 0::2], maps[:, 3:5, 1::2, 1::2])  # a wide cell spans 2x2 cells
    assert not torch.equal(maps[:, 3:5, 0, 0], maps[:, 3:5, 2, 2])
    assert torch.equal(maps[:, 5], maps[:, 5, :1, :1].expand(-1, 10, 10))


def test_the_smallest_distance_is_that_to_the_nearest_patch_of_the_prototypes_own_scale() -> None:
    torch.manual_seed(0)
    config = EncoderConfig(num_prototypes=4, num_wide_prototypes=1, num_global_prototypes=1)
    module = PrototypeEncoder(config, 1)
    features = module.features(torch.rand(3, 1, 29, 36) * 2 - 1)  # an odd grid and an even one
    by_scale = module.features_by_scale(features)
    found = module.distances(features).amin(dim=(2, 3))
    for j, grid in ((2, by_scale["wide"]), (3, by_scale["global"])):
        patches = grid.flatten(2)  # (B, D, patches)
        expected = (patches - module.prototypes[j][:, None]).square().mean(dim=1).amin(dim=1)
        torch.testing.assert_close(found[:, j], expected, rtol=1e-4, atol=1e-6)


def test_an_encoder_of_local_prototypes_has_no_further_weights() -> None:
    assert {name.partition(".")[0] for name in encoder().state_dict()} == {"features", "prototypes"}
