"""The latent prior: a small diffusion model over activation vectors, so that s need not be given.

Both classes work on z, the normal scores of s over the training data: every entry has mean 0 and standard
deviation 1 (`model.statistics.ActivationStatistics.to_scores` is the way there, `from_scores` the way back).
The published sampler of s does not normalise, and adds fresh noise where DDIM needs the predicted noise.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import PriorConfig
from model.patronus import take_step
from model.schedule import NoiseSchedule
from model.unet import TimeEmbedding

TIME_WIDTH = 64


class Prior(nn.Module):
    """Residual MLP that denoises normalised activation vectors (Preechakul et al. 2022, "latent DDIM").

    As there, an MLP with time conditioning in every layer learns the noise in a normalised latent; here
    each layer is a residual one with adaptive normalisation, which trains faster than their concatenated
    skips.
    """

    alphas_cumprod: Tensor

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.time_embedding = TimeEmbedding(TIME_WIDTH, TIME_WIDTH)
        self.first = nn.Linear(config.num_prototypes, width)
        self.layers = nn.ModuleList(ResidualLayer(width, config.dropout) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, config.num_prototypes)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        alphas_cumprod = NoiseSchedule.from_config(config.schedule).alphas_cumprod
        self.register_buffer("alphas_cumprod", torch.from_numpy(alphas_cumprod), persistent=False)

    def forward(self, z_t: Tensor, timesteps: Tensor) -> Tensor:
        """z_t (B, m), timesteps (B,) int64 -> the raw prediction (eps or v), (B, m)."""
        time = F.silu(self.time_embedding(timesteps))  # (B, TIME_WIDTH)
        h = self.first(z_t)  # (B, width)
        for layer in self.layers:
            h = layer(h, time)
        prediction: Tensor = self.last(F.silu(self.norm(h)))
        return prediction

    def add_noise(self, z_0: Tensor, eps: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z_t and the weights (alpha, sigma), (B, 1) each, that made it (Ho et al. 2020, eq. 4)."""
        alpha_bar = self.alphas_cumprod[timesteps][:, None]
        alpha, sigma = alpha_bar.sqrt().to(z_0.dtype), (1.0 - alpha_bar).sqrt().to(z_0.dtype)
        return alpha * z_0 + sigma * eps, alpha, sigma


class ResidualLayer(nn.Module):
    """Normalisation modulated by the time, two linear maps, and a shortcut past all of it."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(TIME_WIDTH, 2 * width)
        self.linear_1 = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.linear_2 = nn.Linear(width, width)
        for module in (self.modulation, self.linear_2):  # the layer begins as its shortcut
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.modulation(time).chunk(2, dim=1)  # (B, width) each
        residual = F.silu(self.linear_1(self.norm(h) * (1.0 + scale) + shift))
        summed: Tensor = h + self.linear_2(self.dropout(residual))
        return summed


class PriorStep(nn.Module):
    """One step of any sampler over z: `model.patronus.DenoiseStep` for vectors, without a condition.

    Coefficients are columns (alpha, sigma, clip, a, b, c, d, keep) as in `model.samplers`.
    """

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior

    def forward(
        self, x_t: Tensor, timesteps: Tensor, memory: Tensor, noise: Tensor, coefficients: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x_t, memory, noise (B, m) in z-space; timesteps (B,) int64; coefficients (B, 8)
        -> x_next, memory_next, x_0_hat, (B, m) each."""
        prediction = self.prior(x_t, timesteps)
        kind = self.prior.config.prediction
        return take_step(prediction, x_t, memory, noise, coefficients[:, :, None], kind)
