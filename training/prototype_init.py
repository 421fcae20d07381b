"""Start prototypes from real patches."""

from __future__ import annotations

import torch
from torch import Tensor

from model.patronus import Patronus


@torch.no_grad()
def initialise_prototypes(patronus: Patronus, x_0: Tensor, *, seed: int) -> None:
    """Set the prototypes to patch features of x_0 (B, C, H, W) that lie far from one another.

    The first is drawn at random, each further one with probability proportional to its squared
    distance from those before (k-means++, Arthur and Vassilvitskii 2007).
    """
    features = patronus.encoder.features(x_0)  # (B, D, h, w)
    candidates = features.permute(0, 2, 3, 1).flatten(0, 2)  # (B h w, D)
    generator = torch.Generator().manual_seed(seed)
    chosen = [int(torch.randint(len(candidates), (1,), generator=generator))]
    nearest = torch.full((len(candidates),), torch.inf)
    while len(chosen) < patronus.config.num_prototypes:
        to_last = (candidates - candidates[chosen[-1]]).square().sum(dim=1).cpu()
        nearest = torch.minimum(nearest, to_last)
        weights = nearest if bool((nearest > 0).any()) else torch.ones_like(nearest)
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
    patronus.encoder.prototypes.copy_(candidates[chosen])
