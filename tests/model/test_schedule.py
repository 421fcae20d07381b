from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.config import ScheduleConfig
from model.schedule import CLEAN, NoiseSchedule

diffusers: Any = importlib.import_module("diffusers")  # its classes are not typed

SCHEDULE = NoiseSchedule.from_config(ScheduleConfig())


def test_schedule_is_the_official_checkpoints(shared: Path) -> None:
    expected = np.load(shared / "reference" / "official-fmnist" / "expected.npz")
    np.testing.assert_allclose(SCHEDULE.betas, expected["betas"].ravel(), rtol=1e-4)
    np.testing.assert_allclose(SCHEDULE.alphas_cumprod, expected["alphas_cumprod"].ravel(), rtol=1e-4)


def test_schedule_is_diffusers_linear_schedule() -> None:
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear"
    )
    np.testing.assert_allclose(SCHEDULE.betas, scheduler.betas.numpy(), rtol=1e-5)
    np.testing.assert_allclose(SCHEDULE.alphas_cumprod, scheduler.alphas_cumprod.numpy(), rtol=1e-4)


@pytest.mark.parametrize("num_timesteps", [250, 500, 4000])
def test_other_lengths_end_at_about_the_same_noise(num_timesteps: int) -> None:
    schedule = NoiseSchedule.from_config(ScheduleConfig(num_timesteps=num_timesteps))
    assert schedule.num_timesteps == num_timesteps
    expected = SCHEDULE.alphas_cumprod[-1]
    assert schedule.alphas_cumprod[-1] == pytest.approx(expected, rel=0.5)
    assert schedule.betas[0] == pytest.approx(1e-4 * 1000 / num_timesteps)


def test_short_schedules_still_keep_something_of_the_image() -> None:
    schedule = NoiseSchedule.from_config(ScheduleConfig(num_timesteps=21))
    assert (schedule.betas < 1.0).all()
    assert (schedule.alphas_cumprod > 0.0).all()


def test_weights_of_image_and_noise_keep_unit_variance() -> None:
    for timestep in (CLEAN, 0, 500, 999):
        alpha, sigma = SCHEDULE.alpha_sigma(timestep)
        assert alpha**2 + sigma**2 == pytest.approx(1.0)
    assert SCHEDULE.alpha_sigma(CLEAN) == (1.0, 0.0)


@pytest.mark.parametrize("timestep", [-2, 1000])
def test_timesteps_outside_the_schedule_are_refused(timestep: int) -> None:
    with pytest.raises(ValueError, match=f"{timestep} is outside -1 to 999"):
        SCHEDULE.alpha_bar(timestep)
