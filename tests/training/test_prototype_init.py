from __future__ import annotations

import dataclasses

import torch

from model.config import ModelConfig
from model.patronus import Patronus
from training.prototype_init import initialise_prototypes


def fresh(config: ModelConfig) -> Patronus:
    torch.manual_seed(0)
    return Patronus(config)


def images() -> torch.Tensor:
    return torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_every_prototype_is_a_patch_of_its_own(tiny_config: ModelConfig) -> None:
    patronus = fresh(tiny_config)
    initialise_prototypes(patronus, images(), seed=0)
    distances = patronus.encoder.distances(patronus.encoder.features(images()))
    nearest = distances.amin(dim=(0, 2, 3))
    assert nearest.max().item() < 1e-5
    between = torch.cdist(patronus.encoder.prototypes, patronus.encoder.prototypes)
    assert between.fill_diagonal_(1.0).min().item() > 1e-3


def test_the_seed_decides_which(tiny_config: ModelConfig) -> None:
    chosen = []
    for seed in (0, 0, 1):
        patronus = fresh(tiny_config)
        initialise_prototypes(patronus, images(), seed=seed)
        chosen.append(patronus.encoder.prototypes.detach().clone())
    assert torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])


def test_images_with_fewer_patches_than_prototypes_still_do(tiny_config: ModelConfig) -> None:
    encoder = dataclasses.replace(tiny_config.encoder, num_prototypes=20)
    patronus = fresh(dataclasses.replace(tiny_config, encoder=encoder))
    initialise_prototypes(patronus, torch.zeros(2, 1, 8, 8), seed=0)
    assert bool(torch.isfinite(patronus.encoder.prototypes).all())
