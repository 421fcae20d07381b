"""Encoder and denoiser together, and the one denoise step that is exported for serving."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.config import ModelConfig, Prediction
from model.encoder import PrototypeEncoder
from model.schedule import NoiseSchedule
from model.unet import UNet


class Patronus(nn.Module):
    """Prototype encoder plus a denoiser conditioned on its activations (Weng et al. 2026).

    Buffers `activation_mean` and `activation_std` (m,) standardise s before the condition
    embedding; they stay 0 and 1 where `config.denoiser.standardize` is off.
    """

    activation_mean: Tensor
    activation_std: Tensor
    alphas_cumprod: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = PrototypeEncoder(config.encoder, config.image.channels)
        self.denoiser = UNet(config.denoiser, config.image.channels, config.num_prototypes)
        self.register_buffer("activation_mean", torch.zeros(config.num_prototypes))
        self.register_buffer("activation_std", torch.ones(config.num_prototypes))
        alphas_cumprod = NoiseSchedule.from_config(config.schedule).alphas_cumprod
        self.register_buffer("alphas_cumprod", torch.from_numpy(alphas_cumprod), persistent=False)

    def forward(self, x_t: Tensor, timesteps: Tensor, activations: Tensor) -> Tensor:
        """The network's raw prediction (eps or v), (B, C, H, W), from s (B, m) as encoded."""
        condition = (activations - self.activation_mean) / self.activation_std
        prediction: Tensor = self.denoiser(x_t, timesteps, condition)
        return prediction

    def add_noise(self, x_0: Tensor, eps: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x_t and the weights (alpha, sigma), (B, 1, 1, 1) each, that made it (Ho et al. 2020, eq. 4)."""
        alpha_bar = self.alphas_cumprod[timesteps][:, None, None, None]
        alpha, sigma = alpha_bar.sqrt().to(x_0.dtype), (1.0 - alpha_bar).sqrt().to(x_0.dtype)
        return alpha * x_0 + sigma * eps, alpha, sigma


def to_x_0_hat(prediction: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor, kind: Prediction) -> Tensor:
    """x̂₀ from an eps-prediction (Ho et al. 2020, eq. 15) or a v-prediction (Salimans and Ho 2022)."""
    if kind == "eps":
        return (x_t - sigma * prediction) / alpha
    return alpha * x_t - sigma * prediction


def take_step(
    prediction: Tensor, x_t: Tensor, memory: Tensor, noise: Tensor, coefficients: Tensor, kind: Prediction
) -> tuple[Tensor, Tensor, Tensor]:
    """The step's arithmetic after the network: `model.samplers.apply_step` in torch, from its prediction.

    prediction, x_t, memory, noise: (B, ...); coefficients: (B, 8, 1, ...), as many axes as x_t and one more
    -> x_next, memory_next, x_0_hat (clipped), each (B, ...).
    """
    alpha, sigma, clip, a, b, c, d, keep = coefficients.unbind(1)
    x_0_hat = to_x_0_hat(prediction, x_t, alpha, sigma, kind)
    x_0_hat = torch.minimum(torch.maximum(x_0_hat, -clip), clip)
    x_next = a * x_t + b * x_0_hat + c * memory + d * noise
    memory_next = torch.where(keep > 0.5, x_t, x_0_hat)
    return x_next, memory_next, x_0_hat


class DenoiseStep(nn.Module):
    """One step of any sampler, every row with its own timestep, condition and coefficients.

    Coefficients are columns (alpha, sigma, clip, a, b, c, d, keep) as in `model.samplers`.
    """

    def __init__(self, patronus: Patronus) -> None:
        super().__init__()
        self.patronus = patronus

    def forward(
        self,
        x_t: Tensor,
        timesteps: Tensor,
        activations: Tensor,
        memory: Tensor,
        noise: Tensor,
        coefficients: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x_t, memory, noise (B, C, H, W); timesteps (B,) int64; activations (B, m);
        coefficients (B, 8) -> x_next, memory_next, x_0_hat, (B, C, H, W) each."""
        prediction = self.patronus(x_t, timesteps, activations)
        kind = self.patronus.config.prediction
        return take_step(prediction, x_t, memory, noise, coefficients[:, :, None, None, None], kind)
