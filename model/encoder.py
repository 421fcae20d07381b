"""The prototype encoder: how strongly, and where, each prototype is present in an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import EncoderConfig, Scale
from model.whole_image import WholeImageFeature

SIMILARITY_EPSILON = 1e-4


class PrototypeEncoder(nn.Module):
    """Scores image patches against learned prototype vectors (Weng et al. 2026, section 3.1).

    `prototypes` is an (m, D) parameter; see `forward` for the shapes it produces. `features` makes the patch
    features (B, D, h, w) of an image. Where the configuration asks for wide or global prototypes, `wide` and
    `whole_image` make further features of these, of larger patches and of the whole image.
    """

    def __init__(self, config: EncoderConfig, image_channels: int) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        width_in = image_channels
        for kernel, width, stride, padding in zip(
            config.kernel_sizes, config.channels, config.strides, config.paddings, strict=True
        ):
            layers += _convolution(width_in, width, kernel, stride, padding)
            width_in = width
        self.features = nn.Sequential(*layers)
        self.prototypes = nn.Parameter(torch.rand(config.num_prototypes, config.feature_width))
        scales = config.num_prototypes_by_scale
        if "wide" in scales:
            self.wide = nn.Sequential(*_wide_layers(config))
        if "global" in scales:
            self.whole_image = WholeImageFeature(width_in)

    def features_by_scale(self, features: Tensor) -> dict[Scale, Tensor]:
        """What the prototypes of each scale are compared with, of the patch features (B, D, h, w).

        -> (B, D, h', w') each: the same for "local", wide patches for "wide", (B, D, 1, 1) for "global".
        """
        found: dict[Scale, Tensor] = {"local": features}
        scales = self.config.num_prototypes_by_scale
        if "wide" in scales:
            found["wide"] = self.wide(features)
        if "global" in scales:
            found["global"] = self.whole_image(features)[:, :, None, None]
        return found

    def distances(self, features: Tensor) -> Tensor:
        """Squared L2 distance of each prototype to the patch that it sees at each cell, floored at 0.

        Patch features (B, D, h, w) -> (B, m, h, w); divided by D where `config.distance` is "mean". A wide
        prototype sees the wide patch whose centre is nearest to the cell's, a global one the whole image
        everywhere (`model.prototype_boxes`), so the smallest over the grid is the smallest at its own scale.
        Always in float32.
        """
        counts = self.config.num_prototypes_by_scale
        sizes = list(counts.values())
        prototypes = torch.split(self.prototypes, sizes) if len(sizes) > 1 else (self.prototypes,)
        by_scale = self.features_by_scale(features)
        height, width = features.shape[2:]
        distances = []
        for scale, group in zip(counts, prototypes, strict=True):
            found = self._squared_distances(by_scale[scale], group)
            if scale == "wide":
                found = found.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                found = found[:, :, :height, :width]  # local cell i has taken wide cell `wide_index(i)`
            elif scale == "global":
                found = found.expand(-1, -1, height, width)
            distances.append(found)
        return torch.cat(distances, dim=1) if len(distances) > 1 else distances[0]

    def _squared_distances(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """(B, D, h, w), (n, D) -> (B, n, h, w). Expanded as |f|² - 2 f·p + |p|²."""
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            prototypes = prototypes.float()
            squared_features = features.square().sum(dim=1, keepdim=True)  # (B, 1, h, w)
            squared_prototypes = prototypes.square().sum(dim=1)[None, :, None, None]  # (1, n, 1, 1)
            products = F.conv2d(features, prototypes[:, :, None, None])  # (B, n, h, w)
            squared = F.relu(squared_features - 2.0 * products + squared_prototypes)
            return squared / features.shape[1] if self.config.distance == "mean" else squared

    def activations(self, distances: Tensor) -> Tensor:
        """Activation s of each prototype: the similarity of its nearest patch; (B, m, h, w) -> (B, m)."""
        return similarity(distances.amin(dim=(2, 3)))

    def forward(self, x_0: Tensor) -> tuple[Tensor, Tensor]:
        """x_0 (B, C, H, W) in [-1, 1] -> activations (B, m), similarity_maps (B, m, h, w)."""
        distances = self.distances(self.features(x_0))
        return self.activations(distances), similarity(distances)


def _wide_layers(config: EncoderConfig) -> list[nn.Module]:
    """D channels in and out, and half as many between, since a bundle keeps every weight twice."""
    width = config.feature_width
    between = [max(1, width // 2)] * (len(config.wide_layers) - 1)
    widths = [width, *between, width]
    layers: list[nn.Module] = []
    for width_in, width_out, layer in zip(widths[:-1], widths[1:], config.wide_layers, strict=True):
        layers += _convolution(width_in, width_out, *layer)
    return layers


def _convolution(width_in: int, width: int, kernel: int, stride: int, padding: int) -> list[nn.Module]:
    convolution = nn.Conv2d(width_in, width, kernel, stride=stride, padding=padding)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return [convolution, nn.ReLU()]


def similarity(distances: Tensor) -> Tensor:
    """log((d + 1) / (d + 1e-4)): 0 far away, 9.21 on the prototype (Chen et al. 2019, ProtoPNet)."""
    return torch.log((distances + 1.0) / (distances + SIMILARITY_EPSILON))
