"""Every sampler against diffusers' scheduler of the same name, over whole loops; BDIA against its equations.

The network is a fixed analytic function, so both sides see the same predictions. diffusers spaces
timesteps in its own ways; where it matters they are set to ours, and the comment says so.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model.config import ScheduleConfig
from model.samplers import (
    ALPHA,
    KEEP,
    NO_CLIP,
    SIGMA,
    Sampler,
    SamplerTable,
    apply_step,
    bdia,
    bdia_inversion,
    bdia_regeneration,
    ddim,
    ddim_inversion,
    ddpm,
    dpmpp_2m,
    sampler_table,
    sampling_timesteps,
)
from model.schedule import CLEAN, NoiseSchedule

Float64 = npt.NDArray[np.float64]

diffusers: Any = importlib.import_module("diffusers")  # its classes are not typed

SCHEDULE = NoiseSchedule.from_config(ScheduleConfig())
SHAPE = (2, 3, 4)


def eps_at(x_t: Float64, timestep: int) -> Float64:
    """A smooth stand-in for the network that depends on both of its arguments."""
    return np.asarray(np.tanh(0.8 * x_t + 0.1) * (0.9 + 0.1 * np.cos(timestep / 200.0)))


def run(table: SamplerTable, x: Float64, noise: Float64 | None = None) -> Float64:
    """The whole loop in float64; `noise` is (steps, *x.shape)."""
    end: Float64
    end, _ = run_from(table, x, np.zeros_like(x), noise)
    return end


def run_from(table: SamplerTable, x: Any, memory: Any, noise: Float64 | None = None) -> tuple[Any, Any]:
    """The whole loop in the precision of x and memory -> x, memory."""
    for i, (timestep, row) in enumerate(zip(table.timesteps, table.coefficients, strict=True)):
        x_0_hat = (x - row[SIGMA] * eps_at(x, timestep)) / row[ALPHA]
        fresh = np.zeros_like(x) if noise is None else noise[i]
        rows: Any = np.tile(row, (len(x), 1)).astype(x.dtype)
        step: Any = apply_step
        x, memory, _ = step(x_0_hat.astype(x.dtype), x, memory, fresh, rows)
    return x, memory


def start(seed: int = 0) -> Float64:
    return np.random.default_rng(seed).standard_normal(SHAPE)


def settings(**more: Any) -> dict[str, Any]:
    return {
        "num_train_timesteps": 1000,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "beta_schedule": "linear",
    } | more


def exact_alphas(scheduler: Any) -> None:
    """Give a diffusers scheduler ᾱ in float64: its own float32 product is off by 1e-5 near T."""
    scheduler.alphas_cumprod = torch.from_numpy(SCHEDULE.alphas_cumprod)


def run_diffusers_ddim(
    steps: int, x: Float64, *, eta: float, clip: bool = False, noise: Float64 | None = None
) -> Float64:
    scheduler = diffusers.DDIMScheduler(
        **settings(clip_sample=clip, set_alpha_to_one=True, timestep_spacing="trailing")
    )
    scheduler.set_timesteps(steps)
    exact_alphas(scheduler)
    x_t = torch.from_numpy(x)
    for i, timestep in enumerate(scheduler.timesteps.tolist()):
        eps = torch.from_numpy(eps_at(x_t.numpy(), timestep))
        fresh = None if noise is None else torch.from_numpy(noise[i])
        # use_clipped_model_output: eps is recomputed from the clipped x_0_hat, as ours is by construction.
        x_t = scheduler.step(
            eps, timestep, x_t, eta=eta, variance_noise=fresh, use_clipped_model_output=clip
        ).prev_sample
    return np.asarray(x_t.numpy())


@pytest.mark.parametrize("steps", [5, 20, 50, 1000])
def test_ddim_is_diffusers_ddim(steps: int) -> None:
    expected = run_diffusers_ddim(steps, start(), eta=0.0)
    np.testing.assert_allclose(run(ddim(SCHEDULE, steps), start()), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("steps", [5, 20, 50, 1000])
def test_ddim_with_noise_is_diffusers_ddim_given_the_same_noise(steps: int, eta: float) -> None:
    noise = np.random.default_rng(1).standard_normal((steps, *SHAPE))
    expected = run_diffusers_ddim(steps, start(), eta=eta, noise=noise)
    found = run(ddim(SCHEDULE, steps, eta=eta), start(), noise)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_with_clipping_is_diffusers_ddim_with_clipping(eta: float) -> None:
    noise = np.random.default_rng(1).standard_normal((20, *SHAPE))
    expected = run_diffusers_ddim(20, start(), eta=eta, clip=True, noise=noise)
    found = run(ddim(SCHEDULE, 20, eta=eta, clip=1.0), start(), noise)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert not np.allclose(found, run(ddim(SCHEDULE, 20, eta=eta), start(), noise))


@pytest.mark.parametrize("steps", [5, 20, 50, 1000])
def test_ddpm_is_diffusers_ddpm_given_the_same_noise(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(2).standard_normal((steps, *SHAPE))
    scheduler = diffusers.DDPMScheduler(
        **settings(clip_sample=False, variance_type="fixed_small", timestep_spacing="trailing")
    )
    scheduler.set_timesteps(steps)
    exact_alphas(scheduler)
    x_t = torch.from_numpy(start())
    for i, timestep in enumerate(scheduler.timesteps.tolist()):
        fresh = torch.from_numpy(noise[i])
        # DDPMScheduler draws its own noise; feed it ours.
        monkeypatch.setattr(
            "diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, fresh=fresh, **__: fresh
        )
        eps = torch.from_numpy(eps_at(x_t.numpy(), timestep))
        x_t = scheduler.step(eps, timestep, x_t).prev_sample
    found = run(ddpm(SCHEDULE, steps), start(), noise)
    np.testing.assert_allclose(found, x_t.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [5, 20, 50])
def test_dpmpp_2m_is_diffusers_dpm_solver_plus_plus(steps: int) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **settings(
            algorithm_type="dpmsolver++",
            solver_order=2,
            solver_type="midpoint",
            timestep_spacing="trailing",
            final_sigmas_type="zero",  # end at the image itself, as ours does
            lower_order_final=True,
        )
    )
    scheduler.set_timesteps(steps)
    # Its sigmas are float32 products; give it ours in float64, at the same timesteps.
    alpha_bar = SCHEDULE.alphas_cumprod[scheduler.timesteps.numpy()]
    scheduler.sigmas = torch.from_numpy(np.append(np.sqrt((1 - alpha_bar) / alpha_bar), 0.0))
    x_t = torch.from_numpy(start())
    for timestep in scheduler.timesteps:
        eps = torch.from_numpy(eps_at(x_t.numpy(), int(timestep)))
        x_t = scheduler.step(eps, timestep, x_t).prev_sample
    found = run(dpmpp_2m(SCHEDULE, steps), start())
    np.testing.assert_allclose(found, x_t.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [5, 20, 50, 1000])
def test_ddim_inversion_is_diffusers_inverse_scheduler(steps: int) -> None:
    scheduler = diffusers.DDIMInverseScheduler(
        **settings(clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing")
    )
    scheduler.set_timesteps(steps)
    exact_alphas(scheduler)
    # Its step(t) goes from t - T / steps to t, telling the network t: our convention. Below 0 it takes
    # initial_alpha_cumprod, 1 here. Its first timestep is a whole stride above 0, like ours.
    assert scheduler.timesteps.tolist() == ddim_inversion(SCHEDULE, steps).timesteps.tolist()
    x_t = torch.from_numpy(start())
    for timestep in scheduler.timesteps.tolist():
        eps = torch.from_numpy(eps_at(x_t.numpy(), timestep))
        x_t = scheduler.step(eps, timestep, x_t).prev_sample
    found = run(ddim_inversion(SCHEDULE, steps), start())
    np.testing.assert_allclose(found, x_t.numpy(), rtol=1e-6, atol=1e-6)


def test_sampling_after_inversion_returns_to_the_image_as_steps_grow() -> None:
    x_0 = np.clip(start(), -1.0, 1.0)
    errors = []
    for steps in (10, 100, 1000):
        x_T = run(ddim_inversion(SCHEDULE, steps), x_0)
        errors.append(float(np.abs(run(ddim(SCHEDULE, steps), x_T) - x_0).max()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 2e-2


GAMMAS = (0.5, 0.9, 0.96, 1.0)


def ddim_difference(z_i: Float64, eps: Float64, now: int, following: int) -> Float64:
    """Δ(t_i → t_j | z_i): what one DDIM step from level `now` to level `following` adds to z_i."""
    alpha, sigma = SCHEDULE.alpha_sigma(now)
    alpha_j, sigma_j = SCHEDULE.alpha_sigma(following)
    return alpha_j * (z_i - sigma * eps) / alpha + sigma_j * eps - z_i


def bdia_update(z_before: Float64, z_i: Float64, gamma: float, levels: tuple[int, int, int]) -> Float64:
    """z_{i-1} from z_{i+1} and z_i, as the paper (Zhang et al. 2024) writes it; levels of i+1, i, i-1.

    The interval behind is integrated twice, from both of its ends, and gamma weighs the two; the one ahead
    as in DDIM. All from one eps.
    """
    before, now, following = levels
    eps = eps_at(z_i, now)
    backward = ddim_difference(z_i, eps, now, before)
    interval_behind = -(1.0 - gamma) * (z_before - z_i) - gamma * backward
    interval_ahead = ddim_difference(z_i, eps, now, following)
    return z_before + interval_behind + interval_ahead


def bdia_update_solved(z_i: Float64, z_next: Float64, gamma: float, levels: tuple[int, int, int]) -> Float64:
    """z_{i+1} from z_i and z_{i-1}, levels as in `bdia_update`: that equation solved for its first term."""
    before, now, following = levels
    eps = eps_at(z_i, now)
    backward = ddim_difference(z_i, eps, now, before)
    interval_ahead = ddim_difference(z_i, eps, now, following)
    return (z_next - (1.0 - gamma) * z_i + gamma * backward - interval_ahead) / gamma


def descending_levels(steps: int) -> list[int]:
    return [*sampling_timesteps(SCHEDULE, steps).tolist(), CLEAN]


def bdia_by_its_equations(steps: int, z: Float64, gamma: float) -> list[Float64]:
    """All states from z_steps to z_0; the first step is plain DDIM."""
    levels = descending_levels(steps)
    states = [z, z + ddim_difference(z, eps_at(z, levels[0]), levels[0], levels[1])]
    for at in zip(levels[:-2], levels[1:-1], levels[2:], strict=True):
        states.append(bdia_update(states[-2], states[-1], gamma, at))
    return states


def bdia_inversion_by_its_equations(steps: int, z_0: Float64, gamma: float) -> list[Float64]:
    """All states from z_0 to z_steps; z_1 is plain DDIM along eps at the noisier end's timestep."""
    levels = descending_levels(steps)[::-1]
    states = [z_0, z_0 + ddim_difference(z_0, eps_at(z_0, levels[1]), CLEAN, levels[1])]
    for at in zip(levels[2:], levels[1:-1], levels[:-2], strict=True):
        states.append(bdia_update_solved(states[-1], states[-2], gamma, at))
    return states


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("steps", [2, 3, 10, 50])
def test_bdia_is_the_papers_recurrence(steps: int, gamma: float) -> None:
    *_, memory, x = bdia_by_its_equations(steps, start(), gamma)
    found = run_from(bdia(SCHEDULE, steps, gamma=gamma), start(), np.zeros(SHAPE))
    np.testing.assert_allclose(found[0], x, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found[1], memory, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("steps", "gamma"), [(2, 0.5), (10, 0.5), (50, 0.9), (200, 0.96), (1000, 1.0)])
def test_bdia_inversion_is_the_papers_recurrence_solved_for_the_noisier_state(
    steps: int, gamma: float
) -> None:
    *_, memory, x = bdia_inversion_by_its_equations(steps, start(), gamma)
    found = run_from(bdia_inversion(SCHEDULE, steps, gamma=gamma), start(), np.zeros(SHAPE))
    scale = np.abs(x).max()
    np.testing.assert_allclose(found[0] / scale, x / scale, rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(found[1] / scale, memory / scale, rtol=0.0, atol=1e-9)


ROUND_TRIPS = [(2, 0.5), (10, 0.5), (10, 0.9), (20, 0.96), (50, 0.9), (50, 1.0), (250, 1.0), (1000, 1.0)]


@pytest.mark.parametrize(("steps", "gamma"), ROUND_TRIPS)
def test_bdia_regeneration_undoes_its_inversion(steps: int, gamma: float) -> None:
    z_0 = start()
    x, memory = run_from(bdia_inversion(SCHEDULE, steps, gamma=gamma), z_0, np.zeros(SHAPE))
    found, _ = run_from(bdia_regeneration(SCHEDULE, steps, gamma=gamma), memory, x)
    np.testing.assert_allclose(found, z_0, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize(("steps", "gamma"), ROUND_TRIPS)
def test_bdia_inversion_undoes_the_regeneration_of_any_two_states(steps: int, gamma: float) -> None:
    x, memory = start(1), start(2)
    z_0, z_1 = run_from(bdia_regeneration(SCHEDULE, steps, gamma=gamma), x, memory)
    whole = bdia_inversion(SCHEDULE, steps, gamma=gamma)
    from_two_states = SamplerTable(whole.timesteps[1:], whole.coefficients[1:])
    found_memory, found_x = run_from(from_two_states, z_1, z_0)
    np.testing.assert_allclose(found_x, x, rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(found_memory, memory, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize(("steps", "gamma"), ROUND_TRIPS)
def test_bdia_round_trip_in_float32_stays_far_below_a_gray_level(steps: int, gamma: float) -> None:
    z_0 = start().astype(np.float32)
    x, memory = run_from(bdia_inversion(SCHEDULE, steps, gamma=gamma), z_0, np.zeros_like(z_0))
    found, _ = run_from(bdia_regeneration(SCHEDULE, steps, gamma=gamma), memory, x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, z_0, rtol=0.0, atol=4e-4)  # a gray level is 8e-3


def test_bdia_regeneration_is_bdia_without_its_first_step() -> None:
    whole, rest = bdia(SCHEDULE, 20, gamma=0.96), bdia_regeneration(SCHEDULE, 20, gamma=0.96)
    np.testing.assert_array_equal(rest.timesteps, whole.timesteps[1:])
    np.testing.assert_array_equal(rest.coefficients, whole.coefficients[1:])
    np.testing.assert_array_equal(whole.timesteps, ddim(SCHEDULE, 20).timesteps)


def test_bdia_comes_nearer_to_a_fine_solution_than_ddim_in_as_many_steps() -> None:
    fine = run(ddim(SCHEDULE, 1000), start())
    for steps in (10, 20, 50):
        error = np.abs(run(bdia(SCHEDULE, steps, gamma=0.5), start()) - fine).mean()
        assert error < np.abs(run(ddim(SCHEDULE, steps), start()) - fine).mean()


def test_bdia_inversion_grows_by_no_factor_at_gamma_1() -> None:
    for steps in (10, 100, 1000):
        x, _ = run_from(bdia_inversion(SCHEDULE, steps), np.clip(start(), -1.0, 1.0), np.zeros(SHAPE))
        assert np.abs(x).max() < 3.0


@pytest.mark.parametrize("gamma", [0.0, -0.5, 1.01, float("nan")])
def test_impossible_gamma_is_refused(gamma: float) -> None:
    for table in (bdia, bdia_inversion, bdia_regeneration):
        with pytest.raises(ValueError, match="gamma must be above 0 and at most 1"):
            table(SCHEDULE, 10, gamma=gamma)


@pytest.mark.parametrize("steps", [-1, 0, 1, 1001])
def test_bdia_needs_two_steps_or_more(steps: int) -> None:
    for table in (bdia, bdia_inversion, bdia_regeneration):
        with pytest.raises(ValueError, match=f"2 to 1000, not {steps}"):
            table(SCHEDULE, steps)


def test_inversion_that_would_outgrow_float32_is_refused_and_says_what_gamma_would_do() -> None:
    for table in (bdia_inversion, bdia_regeneration):
        with pytest.raises(ValueError, match=r"gamma must be 0\.8011 to 1 to invert 50 steps"):
            table(SCHEDULE, 50, gamma=0.8)
        table(SCHEDULE, 50, gamma=0.8011)
    bdia(SCHEDULE, 50, gamma=0.8)  # sampling shrinks what inverting enlarges


def test_samplers_of_one_step_give_the_data_prediction() -> None:
    alpha, sigma = SCHEDULE.alpha_sigma(999)
    expected = (start() - sigma * eps_at(start(), 999)) / alpha
    for table in (ddim(SCHEDULE, 1), ddpm(SCHEDULE, 1), dpmpp_2m(SCHEDULE, 1)):
        np.testing.assert_allclose(run(table, start()), expected, rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 7, 20, 999, 1000])
def test_timesteps_start_at_the_last_and_never_repeat(steps: int) -> None:
    timesteps = sampling_timesteps(SCHEDULE, steps)
    assert timesteps[0] == 999
    assert len(timesteps) == steps
    assert (np.diff(timesteps) < 0).all()
    assert timesteps[-1] >= 0


def test_inversion_tells_the_network_the_same_timesteps_as_sampling() -> None:
    down, up = ddim(SCHEDULE, 20).timesteps, ddim_inversion(SCHEDULE, 20).timesteps
    np.testing.assert_array_equal(up, down[::-1])


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_step_counts_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 1000, not {steps}"):
        sampling_timesteps(SCHEDULE, steps)


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_impossible_eta_is_refused(eta: float) -> None:
    with pytest.raises(ValueError, match="eta must be 0 to 1"):
        ddim(SCHEDULE, 10, eta=eta)


@pytest.mark.parametrize("sampler", ["ddpm", "dpmpp_2m"])
def test_eta_is_refused_where_it_means_nothing(sampler: Sampler) -> None:
    with pytest.raises(ValueError, match="eta is for ddim only"):
        sampler_table(sampler, SCHEDULE, 10, eta=0.5)


def test_sampler_names_lead_to_their_tables() -> None:
    for name, table in (
        ("ddim", ddim(SCHEDULE, 9, clip=1.0)),
        ("ddpm", ddpm(SCHEDULE, 9, clip=1.0)),
        ("dpmpp_2m", dpmpp_2m(SCHEDULE, 9, clip=1.0)),
    ):
        found = sampler_table(name, SCHEDULE, 9, clip=1.0)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found.coefficients, table.coefficients)


def test_only_tables_with_noise_are_stochastic() -> None:
    assert ddpm(SCHEDULE, 5).is_stochastic
    assert ddim(SCHEDULE, 5, eta=0.5).is_stochastic
    assert not ddim(SCHEDULE, 5).is_stochastic
    assert not dpmpp_2m(SCHEDULE, 5).is_stochastic
    assert not ddim_inversion(SCHEDULE, 5).is_stochastic
    assert not bdia(SCHEDULE, 5).is_stochastic
    assert not bdia_inversion(SCHEDULE, 5).is_stochastic


def test_every_row_of_a_table_is_finite_but_for_an_open_clip() -> None:
    for table in (
        ddim(SCHEDULE, 1000, eta=1.0),
        dpmpp_2m(SCHEDULE, 1000),
        ddim_inversion(SCHEDULE, 1000),
        bdia(SCHEDULE, 1000),
        bdia_inversion(SCHEDULE, 1000),
    ):
        rows = np.where(table.coefficients == NO_CLIP, 0.0, table.coefficients)
        assert np.isfinite(rows.astype(np.float32)).all()


def test_keep_decides_what_a_step_remembers() -> None:
    x_t, x_0_hat = np.ones((2, 3), np.float32), np.full((2, 3), 0.5, np.float32)
    coefficients = np.zeros((2, 8), np.float32)
    coefficients[:, 2] = np.inf
    coefficients[1, KEEP] = 1.0
    _, memory, _ = apply_step(x_0_hat, x_t, x_t, x_t, coefficients)
    np.testing.assert_array_equal(memory, [[0.5] * 3, [1.0] * 3])
