"""The prototype encoder: how strongly, and where, each prototype is present in an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import EncoderConfig

SIMILARITY_EPSILON = 1e-4


class PrototypeEncoder(nn.Module):
    """Scores image patches against learned prototype vectors (Weng et al. 2026, section 3.1).

    `prototypes` is an (m, D) parameter; see `forward` for the shapes it produces.
    """

    def __init__(self, config: EncoderConfig, image_channels: int) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        width_in = image_channels
        for kernel, width, stride, padding in zip(
            config.kernel_sizes, config.channels, config.strides, config.paddings, strict=True
        ):
            convolution = nn.Conv2d(width_in, width, kernel, stride=stride, padding=padding)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            layers += [convolution, nn.ReLU()]
            width_in = width
        self.features = nn.Sequential(*layers)
        self.prototypes = nn.Parameter(torch.rand(config.num_prototypes, config.feature_width))

    def distances(self, features: Tensor) -> Tensor:
        """Squared L2 distance of each prototype to each patch feature, floored at 0.

        features (B, D, h, w) -> (B, m, h, w); divided by D where `config.distance` is "mean".
        Expanded as |f|² - 2 f·p + |p|², always in float32.
        """
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            prototypes = self.prototypes.float()
            squared_features = features.square().sum(dim=1, keepdim=True)  # (B, 1, h, w)
            squared_prototypes = prototypes.square().sum(dim=1)[None, :, None, None]  # (1, m, 1, 1)
            products = F.conv2d(features, prototypes[:, :, None, None])  # (B, m, h, w)
            squared = F.relu(squared_features - 2.0 * products + squared_prototypes)
            return squared / features.shape[1] if self.config.distance == "mean" else squared

    def activations(self, distances: Tensor) -> Tensor:
        """Activation s of each prototype: the similarity of its nearest patch; (B, m, h, w) -> (B, m)."""
        return similarity(distances.amin(dim=(2, 3)))

    def forward(self, x_0: Tensor) -> tuple[Tensor, Tensor]:
        """x_0 (B, C, H, W) in [-1, 1] -> activations (B, m), similarity_maps (B, m, h, w)."""
        distances = self.distances(self.features(x_0))
        return self.activations(distances), similarity(distances)


def similarity(distances: Tensor) -> Tensor:
    """log((d + 1) / (d + 1e-4)): 0 far away, 9.21 on the prototype (Chen et al. 2019, ProtoPNet)."""
    return torch.log((distances + 1.0) / (distances + SIMILARITY_EPSILON))
