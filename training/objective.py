"""The loss of one training step, as the module whose forward pass every process runs on its images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.encoder import similarity
from model.patronus import Patronus, to_x_0_hat
from training.config import TrainConfig
from training.decoupling import LEAST_UNIT, Decoupling, Intervention
from training.gathering import gather_rows
from training.losses import (
    decorrelation_loss,
    denoising_loss,
    distinctness_loss,
    min_snr_weights,
    nearest_patch_loss,
    variance_loss,
)
from training.reencoding import reencoding_loss


class Losses(NamedTuple):
    """Scalars: `total` is minimised; the others are its terms before their weights, and `raw_spread`.

    `denoising` is as minimised: with min-SNR weighting, the weighted error. `leakage` and `shortfall` are
    those of `training.decoupling`, 0 without pairs; `reencoding` is 0 where its weight is.
    """

    total: Tensor
    denoising: Tensor
    nearest_patch: Tensor
    decorrelation: Tensor
    variance: Tensor
    distinctness: Tensor
    raw_spread: Tensor
    leakage: Tensor
    shortfall: Tensor
    reencoding: Tensor


class Objective(nn.Module):
    """x_0, eps, timesteps -> Losses of `patronus` (Weng et al. 2026, section 3.2, and our terms on s).

    Terms and statistics that look at the batch as a whole look at the whole batch of all processes. Their
    gradients come out right because the processes' gradients are averaged afterwards.
    """

    def __init__(self, patronus: Patronus, config: TrainConfig) -> None:
        super().__init__()
        self.patronus = patronus
        self.config = config
        pairs = config.loss.decoupled_pairs
        self.decoupling = Decoupling(pairs, config.model.num_prototypes) if pairs else None

    def forward(
        self, x_0: Tensor, eps: Tensor, timesteps: Tensor, intervention: Intervention | None = None
    ) -> Losses:
        """x_0, eps (B, C, H, W); timesteps (B,) int64; the intervention of the step, where pairs need one."""
        patronus, loss = self.patronus, self.config.loss
        prediction_type = self.config.model.prediction
        x_t, alpha, sigma = patronus.add_noise(x_0, eps, timesteps)
        target = eps if prediction_type == "eps" else alpha * eps - sigma * x_0
        is_frozen = self.config.freeze_encoder
        with torch.set_grad_enabled(torch.is_grad_enabled() and not is_frozen):
            distances = patronus.encoder.distances(patronus.encoder.features(x_0))  # (B, m, h, w)
        smallest = distances.amin(dim=(2, 3))  # (B, m)
        everywhere = gather_rows(smallest)  # (B of all processes, m)
        activations = similarity(everywhere)
        if self.config.model.denoiser.standardize and not is_frozen:
            self.update_statistics(activations.detach(), momentum=self.config.statistics_momentum)
        prediction = patronus(x_t, timesteps, similarity(smallest))
        weights = None
        if loss.min_snr_gamma > 0.0:
            weights = min_snr_weights(alpha, sigma, loss.min_snr_gamma, prediction_type).flatten()
        denoising = denoising_loss(prediction, target, weights)
        nearest_patch = nearest_patch_loss(everywhere)
        decorrelation = decorrelation_loss(activations)
        variance = variance_loss(activations, loss.variance_target)
        distinctness = distinctness_loss(
            patronus.encoder.prototypes, loss.distinctness, loss.distinctness_margin
        )
        decoupling = leakage = shortfall = reencoding = denoising.new_zeros(())
        if self.decoupling is not None and intervention is not None:
            everyones_s = activations.detach()
            decoupling, leakage, shortfall = self.decoupling(
                patronus,
                x_0,
                eps,
                similarity(smallest.detach()),
                everyones_s,
                self._unit(everyones_s),
                intervention,
            )
        if loss.reencoding_weight > 0.0:
            x_0_hat = to_x_0_hat(prediction, x_t, alpha, sigma, prediction_type)
            s = similarity(smallest.detach())
            unit = self._unit(activations.detach())
            reencoding = reencoding_loss(patronus.encoder, x_0_hat, s, unit, alpha)
        total = (
            denoising
            + loss.nearest_patch_weight * nearest_patch
            + loss.decorrelation_weight * decorrelation
            + loss.variance_weight * variance
            + loss.distinctness_weight * distinctness
            + loss.decoupling_weight * decoupling
            + loss.reencoding_weight * reencoding
        )
        spread = activations.std(dim=0).mean()
        return Losses(
            total,
            denoising,
            nearest_patch,
            decorrelation,
            variance,
            distinctness,
            spread,
            leakage,
            shortfall,
            reencoding,
        )

    def _unit(self, everyones_s: Tensor) -> Tensor:
        """The deviation of s, (m,): the running one where there is one, else the batch's."""
        is_running = self.config.model.denoiser.standardize
        spread = self.patronus.activation_std if is_running else everyones_s.std(dim=0)
        return spread.clamp(min=LEAST_UNIT)

    @torch.no_grad()
    def update_statistics(self, activations: Tensor, *, momentum: float) -> None:
        """Move the running mean and deviation of s towards those of a batch (B, m)."""
        self.patronus.activation_mean.lerp_(activations.mean(dim=0), momentum)
        spread = activations.std(dim=0).clamp(min=1e-4)
        self.patronus.activation_std.lerp_(spread, momentum)
