from __future__ import annotations

import numpy as np
import pytest
import torch

from training.losses import (
    activation_correlation,
    decorrelation_loss,
    denoising_loss,
    nearest_patch_loss,
)


def test_nearest_patch_is_sought_over_the_whole_batch() -> None:
    distances = torch.full((2, 3, 4, 4), 9.0)
    distances[0, 0, 1, 2] = 1.0
    distances[1, 1, 3, 3] = 2.0
    assert nearest_patch_loss(distances).item() == pytest.approx((1.0 + 2.0 + 9.0) / 3)


def test_correlation_is_pearsons() -> None:
    activations = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)).double()
    activations[:, 1] += 2 * activations[:, 0]
    expected = np.corrcoef(activations.numpy(), rowvar=False)
    np.testing.assert_allclose(activation_correlation(activations).numpy(), expected, atol=1e-5)


def test_a_prototype_that_never_varies_correlates_with_nothing() -> None:
    activations = torch.randn(50, 3)
    activations[:, 1] = 0.7
    correlation = activation_correlation(activations)
    assert bool(torch.isfinite(correlation).all())
    assert correlation[1, [0, 2]].abs().max().item() < 1e-3


def test_decorrelation_is_one_for_copies_and_zero_for_the_unrelated() -> None:
    column = torch.randn(100, 1)
    assert decorrelation_loss(column.expand(-1, 4)).item() == pytest.approx(1.0, abs=1e-3)
    assert decorrelation_loss(torch.cat([column, -column], dim=1)).item() == pytest.approx(1.0, abs=1e-3)
    apart = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert decorrelation_loss(apart).item() == pytest.approx(0.0, abs=1e-6)


def test_a_single_prototype_has_nothing_to_decorrelate_from() -> None:
    assert decorrelation_loss(torch.randn(8, 1)).item() == 0.0


def test_gradients_stay_finite_where_nothing_varies() -> None:
    activations = torch.ones(8, 3, requires_grad=True)
    decorrelation_loss(activations).backward()  # type: ignore[no-untyped-call]
    assert activations.grad is not None
    assert bool(torch.isfinite(activations.grad).all())


def test_denoising_loss_is_the_mean_square_in_float32() -> None:
    prediction, target = torch.zeros(2, 3, dtype=torch.bfloat16), torch.full((2, 3), 2.0)
    loss = denoising_loss(prediction, target)
    assert loss.dtype == torch.float32
    assert loss.item() == 4.0
