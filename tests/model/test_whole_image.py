"""What the feature of a whole image can tell, and what it must not depend on."""

from __future__ import annotations

import torch

from model.whole_image import WAVES, WholeImageFeature, cosine_waves

WIDTH = 4


def test_waves_are_orthogonal_and_the_first_takes_the_mean() -> None:
    waves = cosine_waves(6, 9)
    assert waves.shape == (len(WAVES), 54)
    torch.testing.assert_close(waves[0], torch.full((54,), 1 / 54))
    products = waves @ waves.T
    torch.testing.assert_close(products - products.diag().diag(), torch.zeros_like(products))


def test_a_grid_of_any_size_gives_one_feature_of_the_same_width() -> None:
    feature = WholeImageFeature(WIDTH)
    for size in ((1, 1), (2, 5), (13, 13)):
        assert feature(torch.rand(3, WIDTH, *size)).shape == (3, WIDTH)


def test_the_same_patches_at_other_places_are_told_apart() -> None:
    torch.manual_seed(0)
    feature, patches = WholeImageFeature(WIDTH), torch.rand(1, WIDTH, 6, 6)
    moved = patches.roll(2, dims=2)
    with torch.no_grad():
        assert (feature(patches) - feature(moved)).abs().max() > 1e-3


def test_an_even_image_has_a_finite_gradient() -> None:
    even = torch.ones(2, WIDTH, 3, 3, requires_grad=True)
    WholeImageFeature(WIDTH)(even).sum().backward()
    assert even.grad is not None
    assert bool(torch.isfinite(even.grad).all())
