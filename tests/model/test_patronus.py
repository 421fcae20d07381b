from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from model.config import ModelConfig, Prediction
from model.patronus import DenoiseStep, Patronus, to_x_0_hat
from model.samplers import KEEP, apply_step, ddim, ddim_inversion, dpmpp_2m
from model.schedule import NoiseSchedule


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_denoise_step_is_apply_step_after_the_network(
    tiny_config: ModelConfig, prediction: Prediction
) -> None:
    config = dataclasses.replace(tiny_config, prediction=prediction)
    schedule = NoiseSchedule.from_config(config.schedule)
    tables = (ddim(schedule, 10, eta=0.5, clip=1.0), dpmpp_2m(schedule, 10), ddim_inversion(schedule, 10))
    rows = [(table, i) for table in tables for i in (0, 4, 9)]
    coefficients = np.array([table.coefficients[i] for table, i in rows], dtype=np.float32)
    coefficients[::2, KEEP] = 1.0
    timesteps = torch.tensor([int(table.timesteps[i]) for table, i in rows])
    torch.manual_seed(0)
    patronus = Patronus(config).eval()
    x_t, memory, noise = torch.randn(3, len(rows), *config.image.shape).unbind(0)
    s = torch.rand(len(rows), config.num_prototypes)

    with torch.no_grad():
        found = DenoiseStep(patronus)(x_t, timesteps, s, memory, noise, torch.from_numpy(coefficients))
        raw = patronus(x_t, timesteps, s)
        alpha, sigma = (torch.from_numpy(coefficients[:, i])[:, None, None, None] for i in (0, 1))
        x_0_hat = to_x_0_hat(raw, x_t, alpha, sigma, prediction)
    expected = apply_step(x_0_hat.numpy(), x_t.numpy(), memory.numpy(), noise.numpy(), coefficients)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_a_perfect_prediction_gives_back_the_image(tiny_config: ModelConfig, prediction: Prediction) -> None:
    patronus = Patronus(tiny_config)
    x_0, eps = torch.randn(2, 5, 1, 8, 8).unbind(0)
    x_t, alpha, sigma = patronus.add_noise(x_0, eps, torch.tensor([0, 5, 10, 20, 39]))
    perfect = eps if prediction == "eps" else alpha * eps - sigma * x_0
    torch.testing.assert_close(to_x_0_hat(perfect, x_t, alpha, sigma, prediction), x_0, rtol=1e-2, atol=1e-2)


def test_activations_are_standardised_before_the_denoiser(tiny_config: ModelConfig) -> None:
    torch.manual_seed(0)
    patronus = Patronus(tiny_config).eval()
    x_t, t, s = torch.randn(2, 1, 8, 8), torch.tensor([1, 30]), torch.rand(2, 4)
    plain = patronus(x_t, t, s)
    patronus.activation_mean.fill_(0.5)
    patronus.activation_std.fill_(0.1)
    torch.testing.assert_close(patronus(x_t, t, 0.5 + 0.1 * s), plain, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(patronus(x_t, t, s), plain)
