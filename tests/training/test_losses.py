from __future__ import annotations

import numpy as np
import pytest
import torch

from training.config import Distinctness
from training.losses import (
    activation_correlation,
    decorrelation_loss,
    denoising_loss,
    distinctness_loss,
    min_snr_weights,
    nearest_patch_loss,
    variance_loss,
)


def test_nearest_patch_is_sought_over_the_whole_batch() -> None:
    smallest = torch.full((2, 3), 9.0)
    smallest[0, 0] = 1.0
    smallest[1, 1] = 2.0
    assert nearest_patch_loss(smallest).item() == pytest.approx((1.0 + 2.0 + 9.0) / 3)


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


def test_variance_asks_for_spread_up_to_its_target() -> None:
    activations = torch.tensor([[0.0, 1.0, 3.0], [1.0, 1.0, -3.0]])  # deviations .5, 0 and 3
    assert variance_loss(activations, 1.0).item() == pytest.approx((0.5 + 1.0 + 0.0) / 3, abs=1e-5)


def test_gradients_stay_finite_where_nothing_varies() -> None:
    activations = torch.ones(8, 3, requires_grad=True)
    (decorrelation_loss(activations) + variance_loss(activations, 1.0)).backward()  # type: ignore[no-untyped-call]
    assert activations.grad is not None
    assert bool(torch.isfinite(activations.grad).all())


def test_denoising_loss_is_the_mean_square_in_float32() -> None:
    prediction, target = torch.zeros(2, 3, dtype=torch.bfloat16), torch.full((2, 3), 2.0)
    loss = denoising_loss(prediction, target)
    assert loss.dtype == torch.float32
    assert loss.item() == 4.0


def test_weights_weigh_images() -> None:
    prediction, target = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    target[1] = 3.0
    assert denoising_loss(prediction, target, torch.tensor([1.0, 1.0])) == denoising_loss(prediction, target)
    assert denoising_loss(prediction, target, torch.tensor([4.0, 2.0])).item() == (4.0 * 1 + 2.0 * 9) / 2


def test_min_snr_weighs_the_same_x_0_error_alike_from_eps_and_v() -> None:
    """The x_0 error is (sigma / alpha)² times eps' and sigma² times v's; both must weigh it alike."""
    alpha = torch.tensor([0.99, 0.8, 0.3, 0.05])
    sigma = (1.0 - alpha.square()).sqrt()
    snr = (alpha / sigma).square()
    x_0_weight = snr.clamp(max=5.0)
    eps_weights, v_weights = (min_snr_weights(alpha, sigma, 5.0, kind) for kind in ("eps", "v"))
    torch.testing.assert_close(eps_weights * snr, x_0_weight)
    torch.testing.assert_close(v_weights / sigma.square(), x_0_weight)


def test_distinctness_measures_the_nearest_other_prototype() -> None:
    prototypes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-2.0, 0.0]])
    # 1 - |cos|: prototypes 0 and 2 are parallel (0), 1 is orthogonal to both (1).
    assert distinctness_loss(prototypes, "cosine", 0.4).item() == pytest.approx((0.4 + 0.0 + 0.4) / 3)
    # L2: sqrt(2), sqrt(2), sqrt(5).
    expected = (2 * (2.0 - 2**0.5) + 0.0) / 3
    assert distinctness_loss(prototypes, "euclidean", 2.0).item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
def test_distinctness_pushes_equal_prototypes_apart_with_finite_gradients(kind: Distinctness) -> None:
    prototypes = torch.ones(3, 4, requires_grad=True)
    distinctness_loss(prototypes, kind, 0.5).backward()  # type: ignore[no-untyped-call]
    assert prototypes.grad is not None
    assert bool(torch.isfinite(prototypes.grad).all())
    assert distinctness_loss(torch.ones(1, 4), kind, 0.5).item() == 0.0
