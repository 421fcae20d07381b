from __future__ import annotations

import numpy as np
import pytest
import torch

from model.emergence import NEVER, emergence_timesteps
from model.patronus import DenoiseStep, Patronus
from model.samplers import ddim
from model.schedule import NoiseSchedule
from training.evaluation.emergence import measure_emergence, order_stability


@pytest.fixture(scope="module")
def s() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.0, 3.0, (5, 4)).astype(np.float32)


def test_it_is_what_the_encoder_sees_in_x_0_hat_after_every_step(
    tiny_patronus: Patronus, s: np.ndarray
) -> None:
    table = ddim(NoiseSchedule.from_config(tiny_patronus.config.schedule), 10, clip=1.0)
    x = torch.randn((5, 1, 8, 8), generator=torch.Generator().manual_seed(3))
    step, zero, curves = DenoiseStep(tiny_patronus), torch.zeros_like(x), []
    with torch.no_grad():
        for timestep, row in zip(table.timesteps.tolist(), table.coefficients, strict=True):
            coefficients = torch.tensor(row, dtype=torch.float32).expand(5, -1)
            timesteps = torch.full((5,), timestep)
            x, _, x_0_hat = step(x, timesteps, torch.from_numpy(s), zero, zero, coefficients)
            assert x_0_hat.abs().max() <= 1.0
            curves.append(tiny_patronus.encoder(x_0_hat)[0].numpy())
    expected = emergence_timesteps(np.stack(curves, axis=1), table.timesteps)
    assert (expected != NEVER).any()
    np.testing.assert_array_equal(measure_emergence(tiny_patronus, s, steps=10, seed=3), expected)


def test_batches_do_not_change_it(tiny_patronus: Patronus, s: np.ndarray) -> None:
    expected = measure_emergence(tiny_patronus, s, steps=6)
    np.testing.assert_array_equal(measure_emergence(tiny_patronus, s, steps=6, batch_size=2), expected)


def test_a_schedule_of_fewer_timesteps_is_walked_whole(tiny_patronus: Patronus, s: np.ndarray) -> None:
    found = measure_emergence(tiny_patronus, s[:2], steps=50)  # of T = 40
    assert set(np.unique(found)) <= {NEVER, *range(40)}


def test_an_order_that_both_halves_of_the_images_share_is_stable() -> None:
    in_order = np.array([[900, 500, 100], [850, 450, 50]] * 5)
    assert order_stability(in_order) == pytest.approx(1.0)
    in_order[1::2] = in_order[1::2, ::-1]  # the other half sees the opposite
    assert order_stability(in_order) == pytest.approx(-1.0)


def test_an_order_of_fewer_than_three_is_none() -> None:
    assert order_stability(np.array([[900, 500, NEVER]] * 4)) is None
    assert order_stability(np.array([[500, 500, 500]] * 4)) is None
    assert order_stability(np.array([[900, 500, 100]])) is None
