"""The noise schedule: how much of the image is left at each timestep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.config import ScheduleConfig

Float64 = npt.NDArray[np.float64]

CLEAN = -1
"""The timestep before 0: the image itself, ᾱ = 1."""


@dataclass(frozen=True)
class NoiseSchedule:
    """β and ᾱ of the forward process x_t = sqrt(ᾱ_t) x_0 + sqrt(1 - ᾱ_t) eps (Ho et al. 2020, eq. 4).

    betas, alphas_cumprod: (T,) float64.
    """

    betas: Float64
    alphas_cumprod: Float64

    @classmethod
    def from_config(cls, config: ScheduleConfig) -> NoiseSchedule:
        scale = 1000.0 / config.num_timesteps
        betas = np.linspace(
            config.beta_start * scale,
            min(config.beta_end * scale, 0.999),
            config.num_timesteps,
            dtype=np.float64,
        )
        return cls(betas=betas, alphas_cumprod=np.asarray(np.cumprod(1.0 - betas)))

    @property
    def num_timesteps(self) -> int:
        return len(self.betas)

    def alpha_bar(self, timestep: int) -> float:
        """ᾱ at `timestep`; 1 at CLEAN. Raises ValueError outside CLEAN … T - 1."""
        if timestep == CLEAN:
            return 1.0
        if not 0 <= timestep < self.num_timesteps:
            raise ValueError(f"timestep {timestep} is outside -1 to {self.num_timesteps - 1}")
        return float(self.alphas_cumprod[timestep])

    def alpha_sigma(self, timestep: int) -> tuple[float, float]:
        """(sqrt(ᾱ), sqrt(1 - ᾱ)): the weights of image and noise at `timestep`."""
        alpha_bar = self.alpha_bar(timestep)
        return float(np.sqrt(alpha_bar)), float(np.sqrt(1.0 - alpha_bar))
