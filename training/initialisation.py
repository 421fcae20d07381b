"""The weights that a run starts from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.patronus import Patronus
from training.config import EncoderInit, PrototypeInit

PUBLISHED_WEIGHT_STD = 0.1


@torch.no_grad()
def initialise_encoder(patronus: Patronus, how: EncoderInit) -> None:
    """Draw the encoder's layers: "kaiming" leaves them as built, "normal" is N(0, 0.1²) with bias 0."""
    if how == "kaiming":
        return
    for module in patronus.encoder.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.normal_(0.0, PUBLISHED_WEIGHT_STD)


@torch.no_grad()
def initialise_prototypes(patronus: Patronus, x_0: Tensor, how: PrototypeInit, *, seed: int) -> None:
    """Set the prototypes (m, D).

    "patches": patch features of x_0 (B, C, H, W) that lie far from one another (`_distant`);
    "uniform": in [0, 1) (Chen et al. 2019, ProtoPNet); "normal": standard normal.
    """
    prototypes = patronus.encoder.prototypes
    generator = torch.Generator().manual_seed(seed)
    if how == "patches":
        chosen = _distant_patches(patronus, x_0, generator)
    elif how == "uniform":
        chosen = torch.rand(prototypes.shape, generator=generator)
    else:
        chosen = torch.randn(prototypes.shape, generator=generator)
    prototypes.copy_(chosen)


def _distant_patches(patronus: Patronus, x_0: Tensor, generator: torch.Generator) -> Tensor:
    """Features (m, D) of patches of x_0: for the prototypes of each scale, patches of that scale."""
    encoder = patronus.encoder
    by_scale = encoder.features_by_scale(encoder.features(x_0))  # (B, D, h, w) each
    chosen = []
    for scale, count in encoder.config.num_prototypes_by_scale.items():
        candidates = by_scale[scale].permute(0, 2, 3, 1).flatten(0, 2)  # (B h w, D)
        chosen.append(_distant(candidates, count, generator))
    return torch.cat(chosen)


def _distant(candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` of candidates (N, D): the first drawn at random, each further one with probability proportional
    to its squared distance from those before (k-means++, Arthur and Vassilvitskii 2007)."""
    if len(candidates) > LARGEST_CHOICE:
        chance = torch.randperm(len(candidates), generator=generator)[:LARGEST_CHOICE]
        candidates = candidates[chance.to(candidates.device)]
    chosen = [int(torch.randint(len(candidates), (1,), generator=generator))]
    nearest = torch.full((len(candidates),), torch.inf)
    while len(chosen) < count:
        to_last = (candidates - candidates[chosen[-1]]).square().sum(dim=1).cpu()
        nearest = torch.minimum(nearest, to_last)
        weights = nearest if bool((nearest > 0).any()) else torch.ones_like(nearest)
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
    selected: Tensor = candidates[chosen]
    return selected


LARGEST_CHOICE = 200_000
"""Patches to choose from; `torch.multinomial` takes at most 2²⁴, and each one costs a pass."""
