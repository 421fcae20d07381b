from __future__ import annotations

import dataclasses

import pytest
import torch

from model.config import PriorConfig, config_from_dict, config_to_dict
from model.encoder import PrototypeEncoder
from model.patronus import Patronus
from model.prior import Prior
from training.config import TrainConfig
from training.presets import PRESETS


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_survives_json(name: str) -> None:
    assert config_from_dict(TrainConfig, config_to_dict(PRESETS[name])) == PRESETS[name]


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("paper-")])
def test_the_papers_recipe_is_plain(name: str) -> None:
    config = PRESETS[name]
    assert config.optimizer.learning_rate == config.learning_rate_at(0) == 1e-5
    assert config.learning_rate_at(config.num_steps - 1) == 1e-5
    assert config.ema_decay == 0.0
    assert config.loss.nearest_patch_weight == config.loss.decorrelation_weight == 0.0
    assert config.loss.distinctness_weight == config.loss.min_snr_gamma == 0.0
    assert config.model.prediction == "eps"
    assert config.model.encoder.distance == "sum"


@pytest.mark.parametrize(
    ("name", "image", "grid", "m", "epochs"),
    [
        ("paper-fashion-mnist", (1, 32, 32), (10, 10), 30, 100),
        ("paper-cifar10", (3, 32, 32), (10, 10), 100, 300),
        ("paper-celeba", (3, 64, 64), (26, 26), 100, 300),
        ("paper-ffhq", (3, 64, 64), (26, 26), 100, 300),
        ("paper-chexpert", (1, 224, 224), (43, 43), 100, 300),
    ],
)
def test_the_papers_shapes(
    name: str, image: tuple[int, ...], grid: tuple[int, int], m: int, epochs: int
) -> None:
    config = PRESETS[name]
    model = config.model
    assert model.image.shape == image
    assert model.grid_shape == grid
    assert model.num_prototypes == m
    assert config.num_images % epochs == 0
    receptive = model.receptive_field
    assert (receptive.size, receptive.jump) == ((61, 4) if image[1] == 224 else (15, 2))
    maps = PrototypeEncoder(model.encoder, image[0])(torch.zeros(1, *image))[1]
    assert maps.shape == (1, m, *grid)


def test_the_network_for_cartoon_faces_leaves_room_in_a_bundle_of_16_mib() -> None:
    config = PRESETS["small-cartoon-faces"]
    model = config.model
    assert model.image.shape == (3, 64, 64)
    assert model.receptive_field.size == 19
    weights = sum(parameter.nbytes for parameter in Patronus(model).parameters())
    pictures = (model.num_prototypes + 32) * 3 * 64 * 64  # of every prototype, and 32 references
    prior = sum(parameter.nbytes for parameter in Prior(PriorConfig(model.num_prototypes)).parameters())
    assert 2 * weights + pictures + prior < 16 * 2**20  # weights lie in it as ONNX and as safetensors


def test_cartoon_faces_with_other_scales_have_as_many_prototypes_and_the_same_denoiser() -> None:
    local, whole = PRESETS["small-cartoon-faces"], PRESETS["small-cartoon-faces-global"]
    assert whole.model.encoder.num_prototypes_by_scale == {"local": 30, "wide": 10, "global": 8}
    assert dataclasses.replace(whole, model=local.model) == local
    assert whole.model.denoiser == local.model.denoiser
    assert whole.model.num_prototypes == local.model.num_prototypes
    assert whole.model.encoder.receptive_field("wide").size == 43
