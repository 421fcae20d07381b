"""Reading the denoiser's pictures with the encoder, and asking of them what the denoiser was given."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

LARGEST_SLOPE = 1.0
"""Of an image's part of a term, squared deviations, over a distance of x̂₀ (pixels in [-1, 1], L2). s is
a logarithm and steep near a prototype: without a bound single images outweigh a batch."""


def fixed_activations(encoder: nn.Module, x_0: Tensor) -> Tensor:
    """Activations (n, m) of x_0 (n, C, H, W); the gradient reaches x_0, and not the encoder."""
    fixed = {name: parameter.detach() for name, parameter in encoder.named_parameters()}
    activations: Tensor = functional_call(encoder, fixed, (x_0,))[0]
    return activations


def bounded_slope(x_0_hat: Tensor, slope: Tensor) -> Tensor:
    """0 for every image, (n,), with the gradient `slope` at x_0_hat, (n, C, H, W) both, which is bounded."""
    steepness = slope.flatten(1).norm(dim=1).clamp(min=LARGEST_SLOPE)[:, None, None, None]
    carried: Tensor = (x_0_hat * (slope * (LARGEST_SLOPE / steepness))).flatten(1).sum(dim=1)
    return carried - carried.detach()


def reencoding_loss(encoder: nn.Module, x_0_hat: Tensor, s: Tensor, unit: Tensor, alpha: Tensor) -> Tensor:
    """Mean of ᾱ_t ((E(x̂₀) - s) / unit)² over images and prototypes -> scalar.

    x_0_hat (n, C, H, W); s (n, m), what the denoiser was given; unit (m,), deviations of s; alpha √ᾱ_t,
    (n, 1, 1, 1). A cycle consistency (Zhu et al. 2017) on activations. A small feature, such as a smile, is
    few of the pixels that the denoising error counts, and one prototype of m here. At high noise x̂₀ is
    a mean of many pictures and has to be blurred, so ᾱ_t takes these out.
    """
    with torch.autocast(x_0_hat.device.type, enabled=False):
        x_0_hat = x_0_hat.float()
        with torch.enable_grad():
            seen = x_0_hat.detach().requires_grad_()
            deviations = (fixed_activations(encoder, seen) - s) / unit
            errors = alpha.float().square().flatten() * deviations.square().mean(dim=1)  # (n,)
            (slope,) = torch.autograd.grad(errors.sum(), seen)
        return (errors.detach() + bounded_slope(x_0_hat, slope)).mean()
