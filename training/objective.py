"""The loss of one training step, as the module whose forward pass every process runs on its images."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor, nn

from model.encoder import similarity
from model.patronus import Patronus
from training.config import TrainConfig
from training.losses import (
    decorrelation_loss,
    denoising_loss,
    distinctness_loss,
    min_snr_weights,
    nearest_patch_loss,
    variance_loss,
)


class Losses(NamedTuple):
    """Scalars: `total` is minimised; the others are its terms before their weights, and `raw_spread`.

    `denoising` is as minimised: with min-SNR weighting, the weighted error.
    """

    total: Tensor
    denoising: Tensor
    nearest_patch: Tensor
    decorrelation: Tensor
    variance: Tensor
    distinctness: Tensor
    raw_spread: Tensor


class Objective(nn.Module):
    """x_0, eps, timesteps -> Losses of `patronus` (Weng et al. 2026, section 3.2, and our terms on s).

    Terms and statistics that look at the batch as a whole look at the whole batch of all processes. Their
    gradients come out right because the processes' gradients are averaged afterwards.
    """

    def __init__(self, patronus: Patronus, config: TrainConfig) -> None:
        super().__init__()
        self.patronus = patronus
        self.config = config

    def forward(self, x_0: Tensor, eps: Tensor, timesteps: Tensor) -> Losses:
        """x_0, eps (B, C, H, W); timesteps (B,) int64."""
        patronus, loss = self.patronus, self.config.loss
        prediction_type = self.config.model.prediction
        x_t, alpha, sigma = patronus.add_noise(x_0, eps, timesteps)
        target = eps if prediction_type == "eps" else alpha * eps - sigma * x_0
        distances = patronus.encoder.distances(patronus.encoder.features(x_0))  # (B, m, h, w)
        smallest = distances.amin(dim=(2, 3))  # (B, m)
        everywhere = _gather(smallest)  # (B of all processes, m)
        activations = similarity(everywhere)
        if self.config.model.denoiser.standardize:
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
        total = (
            denoising
            + loss.nearest_patch_weight * nearest_patch
            + loss.decorrelation_weight * decorrelation
            + loss.variance_weight * variance
            + loss.distinctness_weight * distinctness
        )
        spread = activations.std(dim=0).mean()
        return Losses(total, denoising, nearest_patch, decorrelation, variance, distinctness, spread)

    @torch.no_grad()
    def update_statistics(self, activations: Tensor, *, momentum: float) -> None:
        """Move the running mean and deviation of s towards those of a batch (B, m)."""
        self.patronus.activation_mean.lerp_(activations.mean(dim=0), momentum)
        spread = activations.std(dim=0).clamp(min=1e-4)
        self.patronus.activation_std.lerp_(spread, momentum)


def _gather(rows: Tensor) -> Tensor:
    """The rows (B, m) of all processes in their order, gradients included."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


class _GatherRows(torch.autograd.Function):
    """All-gather along the first axis; every process' gradient of its rows is the sum over processes."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        context.num_rows = len(rows)
        parts = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        torch.distributed.all_reduce(summed)
        start = torch.distributed.get_rank() * context.num_rows
        return summed[start : start + context.num_rows]
