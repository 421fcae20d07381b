"""What training minimises beside the denoising error."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from model.config import Prediction
from training.config import Distinctness


def nearest_patch_loss(smallest: Tensor) -> Tensor:
    """Mean over prototypes of the smallest distance to any patch in the batch.

    smallest (B, m), each image's smallest distance -> scalar. It is ProtoPNet's cluster cost (Chen et al.
    2019, eq. 2) without labels: a prototype that no patch in the batch resembles is pulled back to one.
    """
    return smallest.amin(dim=0).mean()


def distinctness_loss(prototypes: Tensor, kind: Distinctness, margin: float) -> Tensor:
    """Mean over prototypes of max(0, margin - distance to the nearest other one), (m, D) -> scalar.

    The distance is 1 - |cos| for "cosine", in [0, 1], and the L2 distance for "euclidean" (Weng et al. 2026,
    section 3.2); 0 for a single prototype.
    """
    if len(prototypes) == 1:
        return prototypes.new_zeros(())
    if kind == "cosine":
        directions = functional.normalize(prototypes, dim=1)
        distances = 1.0 - (directions @ directions.T).abs()
    else:
        others = prototypes[:, None, :] - prototypes[None, :, :]
        distances = (others.square().sum(dim=2) + 1e-12).sqrt()  # the root's gradient at 0 is infinite
    itself = torch.eye(len(prototypes), dtype=torch.bool, device=prototypes.device)
    nearest = distances.masked_fill(itself, torch.inf).amin(dim=1)
    return functional.relu(margin - nearest).mean()


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


def variance_loss(activations: Tensor, target: float) -> Tensor:
    """Mean over prototypes of max(0, target - standard deviation over the batch), (B, m) -> scalar.

    The variance term of VICReg (Bardes et al. 2022, eq. 1). Together with `nearest_patch_loss` it asks of a
    prototype that some images have its patch and others have nothing like it.
    """
    deviations = (activations.var(dim=0, correction=0) + 1e-12).sqrt()  # the root's gradient at 0 is infinite
    return functional.relu(target - deviations).mean()


def activation_correlation(activations: Tensor) -> Tensor:
    """Pearson correlation of the columns of (B, m) -> (m, m); columns without spread give 0."""
    centered = activations - activations.mean(dim=0)
    variance = centered.square().mean(dim=0)
    normalised = centered / (variance + 1e-12).sqrt()  # inside the root: its gradient at 0 is infinite
    return normalised.T @ normalised / len(activations)


def denoising_loss(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared error of the network's prediction (Ho et al. 2020, eq. 14), (B, C, H, W) -> scalar.

    `weights` (B,) weigh the images; without them the mean is plain.
    """
    errors = (prediction.float() - target.float()).square()
    if weights is None:
        return errors.mean()
    return (errors.mean(dim=(1, 2, 3)) * weights).mean()


def min_snr_weights(alpha: Tensor, sigma: Tensor, gamma: float, prediction: Prediction) -> Tensor:
    """min(SNR, gamma) in units of the x_0 error, as weights of the eps- or v-error (Hang et al. 2023, eq. 5).

    alpha, sigma: any shape, SNR = (alpha / sigma)² -> the same shape.
    """
    snr = (alpha / sigma).square()
    clipped = snr.clamp(max=gamma)
    return clipped / snr if prediction == "eps" else clipped / (snr + 1.0)
