"""Samplers as tables: every method is a list of timesteps with eight numbers each.

One step, for every row of a batch (`apply_step`):

    x_0_hat = clip((x_t - sigma * eps) / alpha)          # or from a v-prediction
    x_next  = a * x_t + b * x_0_hat + c * memory + d * noise
    memory' = x_0_hat where keep is 0, x_t where keep is 1

The network itself is not called here. Notation against the papers:

| here            | Song et al. 2021 (DDIM) | Lu et al. 2022 (DPM-Solver++) |
|-----------------|-------------------------|-------------------------------|
| alpha_bar       | α_t                     | α_t²                          |
| alpha, sigma    | sqrt(α_t), sqrt(1-α_t)  | α_t, σ_t                      |
| d               | σ_t(η)                  | (none, deterministic)         |
| memory          | (none)                  | x_θ(x_{t_{i-2}}, t_{i-2})     |
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
