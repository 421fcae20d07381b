from __future__ import annotations

import numpy as np
import pytest
import torch

from model.config import ConfigError, Prediction, PriorConfig, ScheduleConfig
from model.patronus import to_x_0_hat
from model.prior import Prior, PriorStep
from model.samplers import KEEP, apply_step, ddim, dpmpp_2m
from model.schedule import NoiseSchedule


def random_prior(prediction: Prediction = "v") -> Prior:
    """A prior of 5 prototypes whose output depends on everything."""
    torch.manual_seed(0)
    config = PriorConfig(
        num_prototypes=5, width=16, num_layers=2, schedule=ScheduleConfig(40), prediction=prediction,
        sampling_steps=8,
    )  # fmt: skip
    prior = Prior(config).eval()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return prior


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_prior_step_is_apply_step_after_the_network(prediction: Prediction) -> None:
    prior = random_prior(prediction)
    schedule = NoiseSchedule.from_config(prior.config.schedule)
    tables = (ddim(schedule, 10, eta=0.5, clip=1.0), dpmpp_2m(schedule, 10))
    rows = [(table, i) for table in tables for i in (0, 4, 9)]
    coefficients = np.array([table.coefficients[i] for table, i in rows], dtype=np.float32)
    coefficients[::2, KEEP] = 1.0
    timesteps = torch.tensor([int(table.timesteps[i]) for table, i in rows])
    x_t, memory, noise = torch.randn(3, len(rows), 5).unbind(0)
    with torch.no_grad():
        found = PriorStep(prior)(x_t, timesteps, memory, noise, torch.from_numpy(coefficients))
        raw = prior(x_t, timesteps)
    alpha, sigma = (torch.from_numpy(coefficients[:, i])[:, None] for i in (0, 1))
    x_0_hat = to_x_0_hat(raw, x_t, alpha, sigma, prediction)
    expected = apply_step(x_0_hat.numpy(), x_t.numpy(), memory.numpy(), noise.numpy(), coefficients)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-5, atol=1e-5)


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    prior = random_prior()
    z, timesteps = torch.randn(4, 5), torch.tensor([0, 3, 20, 39])
    together = prior(z, timesteps)
    alone = torch.cat([prior(z[i : i + 1], timesteps[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_the_prediction_depends_on_the_vector_and_on_the_timestep() -> None:
    prior = random_prior()
    z, timesteps = torch.randn(2, 5), torch.tensor([3, 3])
    prediction = prior(z, timesteps)
    assert not torch.allclose(prediction, prior(z + 1.0, timesteps))
    assert not torch.allclose(prediction, prior(z, timesteps + 30))


def test_an_untrained_prior_predicts_nothing() -> None:
    prior = Prior(PriorConfig(num_prototypes=3, width=16))
    assert torch.equal(prior(torch.randn(2, 3), torch.tensor([0, 999])), torch.zeros(2, 3))


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_a_perfect_prediction_gives_back_the_vector(prediction: Prediction) -> None:
    prior = random_prior(prediction)
    z_0, eps = torch.randn(2, 4, 5).unbind(0)
    z_t, alpha, sigma = prior.add_noise(z_0, eps, torch.tensor([0, 5, 20, 30]))
    perfect = eps if prediction == "eps" else alpha * eps - sigma * z_0
    torch.testing.assert_close(to_x_0_hat(perfect, z_t, alpha, sigma, prediction), z_0, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_prototypes", 0, "prior num_prototypes must be >= 1, not 0"),
        ("width", 0, "prior width must be >= 1, not 0"),
        ("num_layers", 0, "prior num_layers must be >= 1, not 0"),
        ("dropout", 1.0, r"prior dropout must be in \[0, 1\), not 1.0"),
        ("prediction", "x0", "prior prediction must be eps or v, not x0"),
        ("sampling_steps", 1001, "prior sampling_steps 1001 exceed the 1000 timesteps"),
    ],
)
def test_impossible_priors_are_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PriorConfig(**{name: value})  # type: ignore[arg-type]
