"""One feature for a whole image, made of its patch features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

WAVES = ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0))
"""Half periods of cosines over the grid's height and width: the mean first, then what varies slowest."""


class WholeImageFeature(nn.Module):
    """What holds of an image as a whole, from its patch features (B, D, h, w) -> (B, D).

    Of every channel: the mean over the grid, which says tone and light; the standard deviation, which says
    contrast; and the slowest cosine waves (`WAVES`), which say where on the grid it is and how far it
    spreads, hence size, tilt and proportions that a mean would forget. Then one linear layer and a ReLU, as
    all features have one.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear((len(WAVES) + 1) * width, width)
        nn.init.kaiming_normal_(self.linear.weight, nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        waves = cosine_waves(*features.shape[2:]).to(features)  # (waves, h w)
        flat = features.flatten(2)  # (B, D, h w)
        moments = (flat @ waves.T).flatten(1)  # (B, D waves), their mean over the grid
        variance = (flat - flat.mean(dim=2, keepdim=True)).square().mean(dim=2)
        deviation = (variance + 1e-6).sqrt()  # the root's gradient at 0 is infinite
        feature: Tensor = torch.relu(self.linear(torch.cat([moments, deviation], dim=1)))
        return feature


def cosine_waves(height: int, width: int) -> Tensor:
    """(len(WAVES), h w) float32, weights that take the mean over the grid of a map times each wave.

    The low corner of the two-dimensional DCT-II (Ahmed, Natarajan and Rao 1974), unnormalised.
    """
    down, across = ((torch.arange(side) + 0.5) * (math.pi / side) for side in (height, width))
    waves = [torch.outer((k * down).cos(), (n * across).cos()) for k, n in WAVES]
    return torch.stack(waves).flatten(1) / (height * width)
