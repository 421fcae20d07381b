from __future__ import annotations

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.patronus import Patronus, to_x_0_hat
from model.samplers import ALPHA, SIGMA, apply_step, ddim, ddpm, dpmpp_2m
from model.schedule import NoiseSchedule
from training.sampling import run_table


def test_the_loop_is_the_table_row_by_row(tiny_config: ModelConfig) -> None:
    torch.manual_seed(0)
    patronus = Patronus(tiny_config).eval()
    table = dpmpp_2m(NoiseSchedule.from_config(tiny_config.schedule), 8)
    start, s = torch.randn(3, 1, 8, 8), torch.rand(3, 4)
    x, memory = start.numpy(), np.zeros_like(start.numpy())
    for timestep, row in zip(table.timesteps, table.coefficients, strict=True):
        x_t = torch.from_numpy(x)
        with torch.no_grad():
            raw = patronus(x_t, torch.full((3,), int(timestep)), s)
        alpha, sigma = torch.tensor(row[ALPHA]), torch.tensor(row[SIGMA])
        x_0_hat = to_x_0_hat(raw, x_t, alpha, sigma, "v").numpy()
        coefficients = np.tile(row.astype(np.float32), (3, 1))
        x, memory, _ = apply_step(x_0_hat, x, memory, np.zeros_like(x), coefficients)
    np.testing.assert_allclose(run_table(patronus, table, start, s).numpy(), x, rtol=1e-4, atol=1e-4)


def test_noise_comes_from_the_generator_alone(tiny_config: ModelConfig) -> None:
    torch.manual_seed(0)
    patronus = Patronus(tiny_config).eval()
    table = ddpm(NoiseSchedule.from_config(tiny_config.schedule), 5)
    x, s = torch.randn(2, 1, 8, 8), torch.rand(2, 4)
    one, same, other = (
        run_table(patronus, table, x, s, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


def test_a_sampler_that_adds_noise_needs_a_generator(tiny_config: ModelConfig) -> None:
    schedule = NoiseSchedule.from_config(tiny_config.schedule)
    patronus = Patronus(tiny_config)
    with pytest.raises(ValueError, match="pass a generator"):
        run_table(patronus, ddim(schedule, 5, eta=0.5), torch.randn(1, 1, 8, 8), torch.rand(1, 4))
