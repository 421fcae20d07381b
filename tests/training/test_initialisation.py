from __future__ import annotations

import dataclasses

import torch

from model.config import ModelConfig
from model.patronus import Patronus
from training.initialisation import initialise_encoder, initialise_prototypes


def fresh(config: ModelConfig) -> Patronus:
    torch.manual_seed(0)
    return Patronus(config)


def images() -> torch.Tensor:
    return torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_every_prototype_is_a_patch_of_its_own(tiny_config: ModelConfig) -> None:
    patronus = fresh(tiny_config)
    initialise_prototypes(patronus, images(), "patches", seed=0)
    distances = patronus.encoder.distances(patronus.encoder.features(images()))
    nearest = distances.amin(dim=(0, 2, 3))
    assert nearest.max().item() < 1e-5
    between = torch.cdist(patronus.encoder.prototypes, patronus.encoder.prototypes)
    assert between.fill_diagonal_(1.0).min().item() > 1e-3


def test_the_seed_decides_which(tiny_config: ModelConfig) -> None:
    chosen = []
    for seed in (0, 0, 1):
        patronus = fresh(tiny_config)
        initialise_prototypes(patronus, images(), "patches", seed=seed)
        chosen.append(patronus.encoder.prototypes.detach().clone())
    assert torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])


def test_images_with_fewer_patches_than_prototypes_still_do(tiny_config: ModelConfig) -> None:
    encoder = dataclasses.replace(tiny_config.encoder, num_prototypes=20)
    patronus = fresh(dataclasses.replace(tiny_config, encoder=encoder))
    initialise_prototypes(patronus, torch.zeros(2, 1, 8, 8), "patches", seed=0)
    assert bool(torch.isfinite(patronus.encoder.prototypes).all())


def test_random_prototypes_follow_their_distribution(tiny_config: ModelConfig) -> None:
    encoder = dataclasses.replace(tiny_config.encoder, num_prototypes=500)
    patronus = fresh(dataclasses.replace(tiny_config, encoder=encoder))
    prototypes = patronus.encoder.prototypes
    initialise_prototypes(patronus, images(), "uniform", seed=0)
    assert 0.0 <= prototypes.min().item() < 0.01
    assert 0.99 < prototypes.max().item() < 1.0
    initialise_prototypes(patronus, images(), "normal", seed=0)
    assert abs(prototypes.mean().item()) < 0.1
    assert abs(prototypes.std().item() - 1.0) < 0.1


def test_published_encoder_weights_have_their_spread(tiny_config: ModelConfig) -> None:
    encoder = dataclasses.replace(tiny_config.encoder, channels=(60, 80))
    patronus = fresh(dataclasses.replace(tiny_config, encoder=encoder))
    convolution = patronus.encoder.features[2]
    assert isinstance(convolution, torch.nn.Conv2d)
    before = convolution.weight.detach().clone()
    initialise_encoder(patronus, "kaiming")
    assert torch.equal(before, convolution.weight)
    initialise_encoder(patronus, "normal")
    assert abs(convolution.weight.std().item() - 0.1) < 0.002
