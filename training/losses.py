"""What training minimises beside the denoising error."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest_patch_loss(distances: Tensor) -> Tensor:
    """Mean over prototypes of the smallest distance to any patch in the batch.

    distances (B, m, h, w) -> scalar. It is ProtoPNet's cluster cost (Chen et al. 2019, eq. 2) without
    labels: a prototype that no patch in the batch resembles is pulled back to one.
    """
    return distances.amin(dim=(0, 2, 3)).mean()


def decorrelation_loss(activations: Tensor) -> Tensor:
    """Mean squared off-diagonal correlation of activations over the batch.

    activations (B, m) -> scalar in [0, 1]; 0 for a single prototype. The redundancy-reduction term
    of Barlow Twins (Zbontar et al. 2021, eq. 1) applied to one view.
    """
    num_prototypes = activations.shape[1]
    if num_prototypes == 1:
        return activations.new_zeros(())
    correlation = activation_correlation(activations)
    off_diagonal = correlation.square().sum() - correlation.diagonal().square().sum()
    return off_diagonal / (num_prototypes * (num_prototypes - 1))


def activation_correlation(activations: Tensor) -> Tensor:
    """Pearson correlation of the columns of (B, m) -> (m, m); columns without spread give 0."""
    centered = activations - activations.mean(dim=0)
    variance = centered.square().mean(dim=0)
    normalised = centered / (variance + 1e-12).sqrt()  # inside the root: its gradient at 0 is infinite
    return normalised.T @ normalised / len(activations)


def denoising_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Plain mean squared error of the network's prediction (Ho et al. 2020, eq. 14)."""
    return torch.nn.functional.mse_loss(prediction.float(), target.float())
