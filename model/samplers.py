"""Samplers as tables: every method is a list of timesteps with eight numbers each.

One step, for every row of a batch (`apply_step`):

    x_0_hat = clip((x_t - sigma * eps) / alpha)          # or from a v-prediction
    x_next  = a * x_t + b * x_0_hat + c * memory + d * noise
    memory' = x_0_hat where keep is 0, x_t where keep is 1

The network itself is not called here. Notation against the papers:

| here            | Song et al. 2021 (DDIM) | Lu et al. 2022 (DPM-Solver++) | Zhang et al. 2024 (BDIA)   |
|-----------------|-------------------------|-------------------------------|----------------------------|
| alpha_bar       | α_t                     | α_t²                          | α_i²                       |
| alpha, sigma    | sqrt(α_t), sqrt(1-α_t)  | α_t, σ_t                      | α_i, σ_i                   |
| x_t             | x_t                     | x̃_{t_{i-1}}                   | z_i                        |
| d               | σ_t(η)                  | (none, deterministic)         | (none, deterministic)      |
| memory          | (none)                  | x_θ(x_{t_{i-2}}, t_{i-2})     | z_{i+1}; inverting z_{i-1} |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from model.schedule import CLEAN, NoiseSchedule

Float32 = npt.NDArray[np.float32]
Sampler = Literal["ddim", "ddpm", "dpmpp_2m"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)

ALPHA, SIGMA, CLIP, A, B, C, D, KEEP = range(8)
NUM_COEFFICIENTS = 8
NO_CLIP = math.inf
KEEP_X_T = 1.0

DEFAULT_GAMMA = 1.0
"""BDIA's γ: at 1 an inversion enlarges nothing, however many steps it has (`benchmarks.inversion`)."""
LARGEST_AMPLIFICATION = 2.0**24 / 255
"""γ^-steps at which a residual of 1 has grown until float32 rounds it (2^-24) by half a gray level."""


@dataclass(frozen=True)
class SamplerTable:
    """A sampler's whole loop.

    timesteps: (n,) int64, what the network is told at each step.
    coefficients: (n, 8) float64, columns ALPHA … KEEP.
    """

    timesteps: npt.NDArray[np.int64]
    coefficients: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def is_stochastic(self) -> bool:
        """Whether any step adds fresh noise."""
        return bool((self.coefficients[:, D] != 0.0).any())


def sampling_timesteps(schedule: NoiseSchedule, steps: int) -> npt.NDArray[np.int64]:
    """`steps` timesteps from T - 1 down, evenly spaced from the end ("trailing", Lin et al. 2024, table 2).

    Raises ValueError unless 1 <= steps <= T.
    """
    num_timesteps = schedule.num_timesteps
    if not 1 <= steps <= num_timesteps:
        raise ValueError(f"steps must be 1 to {num_timesteps}, not {steps}")
    levels = np.linspace(num_timesteps, 0, steps, endpoint=False)
    return np.asarray(np.round(levels), dtype=np.int64) - 1


def sampler_table(
    sampler: Sampler, schedule: NoiseSchedule, steps: int, *, eta: float = 0.0, clip: float = NO_CLIP
) -> SamplerTable:
    """The table of a sampler by its name. `eta` is DDIM's; ValueError where another sampler is given one."""
    if sampler == "ddim":
        return ddim(schedule, steps, eta=eta, clip=clip)
    if eta != 0.0:
        raise ValueError(f"eta is for ddim only; {sampler} was given eta = {eta}")
    functions: dict[str, Callable[..., SamplerTable]] = {"ddpm": ddpm, "dpmpp_2m": dpmpp_2m}
    return functions[sampler](schedule, steps, clip=clip)


def ddim(schedule: NoiseSchedule, steps: int, *, eta: float = 0.0, clip: float = NO_CLIP) -> SamplerTable:
    """DDIM (Song et al. 2021, eq. 12 and 16); eta 0 is deterministic, eta 1 is ancestral sampling.

    Raises ValueError unless 0 <= eta <= 1.
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta must be 0 to 1, not {eta}")
    timesteps = sampling_timesteps(schedule, steps)
    rows = []
    for t, t_next in _transitions(timesteps):
        alpha, sigma = schedule.alpha_sigma(t)
        alpha_next, sigma_next = schedule.alpha_sigma(t_next)
        noise_std = eta * (sigma_next / sigma) * math.sqrt(1.0 - (alpha / alpha_next) ** 2)
        direction = math.sqrt(max(sigma_next**2 - noise_std**2, 0.0))  # weight of the predicted eps
        a = direction / sigma
        rows.append((alpha, sigma, clip, a, alpha_next - a * alpha, 0.0, noise_std, 0.0))
    return SamplerTable(timesteps, np.array(rows))


def ddpm(schedule: NoiseSchedule, steps: int, *, clip: float = NO_CLIP) -> SamplerTable:
    """Ancestral sampling with the posterior variance (Ho et al. 2020, eq. 7), on a subsequence of steps.

    It is DDIM at eta 1 (Song et al. 2021, section 4.1).
    """
    return ddim(schedule, steps, eta=1.0, clip=clip)


def dpmpp_2m(schedule: NoiseSchedule, steps: int, *, clip: float = NO_CLIP) -> SamplerTable:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2); first order on the first and the last step."""
    timesteps = sampling_timesteps(schedule, steps)
    rows = []
    h_last = 0.0
    for i, (t, t_next) in enumerate(_transitions(timesteps)):
        alpha, sigma = schedule.alpha_sigma(t)
        alpha_next, sigma_next = schedule.alpha_sigma(t_next)
        if t_next == CLEAN:  # h is infinite: the data prediction itself
            rows.append((alpha, sigma, clip, 0.0, 1.0, 0.0, 0.0, 0.0))
            break
        h = math.log(alpha_next / sigma_next) - math.log(alpha / sigma)
        weight = -alpha_next * math.expm1(-h)
        extrapolation = 0.0 if i == 0 else h / (2.0 * h_last)  # 1 / (2 r) with r = h_last / h
        b, c = weight * (1.0 + extrapolation), -weight * extrapolation
        rows.append((alpha, sigma, clip, sigma_next / sigma, b, c, 0.0, 0.0))
        h_last = h
    return SamplerTable(timesteps, np.array(rows))


def ddim_inversion(schedule: NoiseSchedule, steps: int) -> SamplerTable:
    """DDIM run backwards, from the image to x_T (Song et al. 2021, section 4.3).

    It climbs the levels that `ddim` with as many steps descends. As in that descent, the network
    is told the noisier end of each step, so both directions call it with the same timesteps.
    """
    timesteps = sampling_timesteps(schedule, steps)[::-1].copy()
    levels = [CLEAN, *timesteps.tolist()]
    rows = [
        _climb(schedule, told=level_next, now=level, following=level_next)
        for level, level_next in zip(levels[:-1], levels[1:], strict=True)
    ]
    return SamplerTable(timesteps, np.array(rows))


def bdia(schedule: NoiseSchedule, steps: int, *, gamma: float = DEFAULT_GAMMA) -> SamplerTable:
    """BDIA-DDIM from x_T to the image, over `ddim`'s levels (Zhang, Lewis, Kleijn 2024, arXiv 2307.10829).

    A step needs two states, so the first is DDIM's. There is no clip, which could not be undone. Raises
    ValueError unless 0 < gamma <= 1 and 2 <= steps <= T.
    """
    levels = _bdia_levels(schedule, steps, gamma)[::-1]
    alpha, sigma = schedule.alpha_sigma(levels[0])
    a, b = _ddim_weights(schedule, levels[0], levels[1])
    first = (alpha, sigma, NO_CLIP, a, b, 0.0, 0.0, KEEP_X_T)
    rows = [first, *_bdia_rows(schedule, levels, gamma)]
    return SamplerTable(np.array(levels[:-1], np.int64), np.array(rows))


def bdia_inversion(schedule: NoiseSchedule, steps: int, *, gamma: float = DEFAULT_GAMMA) -> SamplerTable:
    """From the image to the last two states of `bdia`, which `bdia_regeneration` takes back to it exactly.

    z_0 is the image; z_1 follows by the first step of `ddim_inversion`, and every later state from the two
    before it. The end is x = z_steps with memory = z_{steps-1}. Exactness does not depend on z_1: the way
    back takes z_0 from z_1 and z_2, and asks no step to undo the first one. Raises ValueError as `bdia`
    does, and where `gamma` is too small for so many steps.
    """
    levels = _bdia_levels(schedule, steps, gamma)
    _check_amplification(steps, gamma)
    first = (*_climb(schedule, told=levels[1], now=CLEAN, following=levels[1])[:KEEP], KEEP_X_T)
    rows = [first, *_bdia_rows(schedule, levels, 1.0 / gamma)]
    return SamplerTable(np.array([levels[1], *levels[1:-1]], np.int64), np.array(rows))


def bdia_regeneration(schedule: NoiseSchedule, steps: int, *, gamma: float = DEFAULT_GAMMA) -> SamplerTable:
    """The way back from the end of `bdia_inversion` with as many steps; it takes one step less.

    The two states change places: x starts as the inversion's memory, and memory as the inversion's x.
    Under the same activations it gives the image back up to float rounding. Raises ValueError as
    `bdia_inversion` does.
    """
    whole = bdia(schedule, steps, gamma=gamma)
    _check_amplification(steps, gamma)
    return SamplerTable(whole.timesteps[1:], whole.coefficients[1:])


def official_ddim_inversion(schedule: NoiseSchedule) -> SamplerTable:
    """The authors' inversion of an image to x_T, in T steps (Weng et al. 2026; their published code's rule).

    The image counts as x at t = 0. Each step tells the network the level t at which x is and climbs to
    t + 1; the last one climbs to ᾱ = 0, where x is the predicted eps. `ddim_inversion` starts at ᾱ = 1,
    ends at T - 1 and tells the noisier end.
    """
    timesteps = np.arange(schedule.num_timesteps, dtype=np.int64)
    weights = [schedule.alpha_sigma(t) for t in timesteps.tolist()] + [(0.0, 1.0)]
    rows = []
    for (alpha, sigma), (alpha_next, sigma_next) in zip(weights[:-1], weights[1:], strict=True):
        a = sigma_next / sigma
        rows.append((alpha, sigma, NO_CLIP, a, alpha_next - a * alpha, 0.0, 0.0, 0.0))
    return SamplerTable(timesteps, np.array(rows))


def _transitions(timesteps: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    descending = [*timesteps.tolist(), CLEAN]
    return list(zip(descending[:-1], descending[1:], strict=True))


def _climb(schedule: NoiseSchedule, *, told: int, now: int, following: int) -> tuple[float, ...]:
    """Row for x at level `now` going to `following` along the eps that the network gives at `told`.

    x_next = alpha' / alpha x + k eps with k = sigma' - alpha' sigma / alpha, and eps recovered from
    x_0_hat, which is formed with the weights of `told`.
    """
    alpha_told, sigma_told = schedule.alpha_sigma(told)
    alpha, sigma = schedule.alpha_sigma(now)
    alpha_next, sigma_next = schedule.alpha_sigma(following)
    k = sigma_next - alpha_next * sigma / alpha
    a = alpha_next / alpha + k / sigma_told
    b = -k * alpha_told / sigma_told
    return (alpha_told, sigma_told, NO_CLIP, a, b, 0.0, 0.0, 0.0)


def _bdia_levels(schedule: NoiseSchedule, steps: int, gamma: float) -> list[int]:
    """The levels of z_0 … z_steps, CLEAN first."""
    if not 0.0 < gamma <= 1.0:
        raise ValueError(f"gamma must be above 0 and at most 1, not {gamma}")
    if not 2 <= steps <= schedule.num_timesteps:
        raise ValueError(f"steps of BDIA must be 2 to {schedule.num_timesteps}, not {steps}")
    return [CLEAN, *sampling_timesteps(schedule, steps)[::-1].tolist()]


def _bdia_rows(schedule: NoiseSchedule, levels: Sequence[int], gamma: float) -> list[tuple[float, ...]]:
    """Rows of a way down (γ), or up (1/γ): at each inner level, with memory at the level before it.

    Down, with Δ(i→j) = DDIM(i→j) - z_i, where DDIM(i→j) carries z_i to level j along its one eps:

        z_{i-1} = z_{i+1} - (1 - γ)(z_{i+1} - z_i) - γ Δ(i→i+1) + Δ(i→i-1)
                = γ (z_{i+1} - DDIM(i→i+1)) + DDIM(i→i-1)

    Solved for z_{i+1}, it is the same with i+1 and i-1 exchanged and 1/γ for γ.
    """
    rows: list[tuple[float, ...]] = []
    for before, now, following in zip(levels[:-2], levels[1:-1], levels[2:], strict=True):
        alpha, sigma = schedule.alpha_sigma(now)
        a, b = _ddim_weights(schedule, now, following)
        a_back, b_back = _ddim_weights(schedule, now, before)
        rows.append((alpha, sigma, NO_CLIP, a - gamma * a_back, b - gamma * b_back, gamma, 0.0, KEEP_X_T))
    return rows


def _ddim_weights(schedule: NoiseSchedule, now: int, following: int) -> tuple[float, float]:
    """Weights of x_t and x_0_hat in the DDIM step, up or down, from level `now` along the eps there."""
    alpha, sigma = schedule.alpha_sigma(now)
    alpha_next, sigma_next = schedule.alpha_sigma(following)
    a = sigma_next / sigma
    return a, alpha_next - a * alpha


def _check_amplification(steps: int, gamma: float) -> None:
    """An inversion divides the difference of two states by γ at every step, so it grows by γ^-steps."""
    smallest = math.ceil(1e4 * LARGEST_AMPLIFICATION ** (-1.0 / steps)) / 1e4
    if gamma < smallest:
        raise ValueError(f"gamma must be {smallest} to 1 to invert {steps} steps in float32, not {gamma}")


def apply_step(
    x_0_hat: Float32, x_t: Float32, memory: Float32, noise: Float32, coefficients: Float32
) -> tuple[Float32, Float32, Float32]:
    """The step's arithmetic after the network: what the exported graph computes, in NumPy.

    x_0_hat (not yet clipped), x_t, memory, noise: (B, ...); coefficients: (B, 8)
    -> x_next, memory_next, x_0_hat (clipped), each (B, ...).
    """
    columns = coefficients.reshape(len(coefficients), NUM_COEFFICIENTS, *[1] * (x_t.ndim - 1))
    _, _, clip, a, b, c, d, keep = np.moveaxis(columns, 1, 0)
    x_0_hat = np.clip(x_0_hat, -clip, clip)
    x_next = a * x_t + b * x_0_hat + c * memory + d * noise
    return x_next, np.where(keep > 0.5, x_t, x_0_hat), x_0_hat
