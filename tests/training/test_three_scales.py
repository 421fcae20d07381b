"""Training, measuring and exporting a model with local, wide and global prototypes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import torch

from model.bundle import DENOISER, ENCODER, PICTURES, Bundle
from model.config import ModelConfig
from model.patronus import Patronus
from model.prototype_boxes import PrototypeBoxes
from model.transforms import crop, to_x_0
from training.config import TrainConfig
from training.data import Dataset
from training.devices import make_accelerator
from training.evaluation.prototypes import prototype_figures
from training.exemplars import encode_all
from training.export import PARITY_TOLERANCE, export_graphs
from training.initialisation import initialise_encoder, initialise_prototypes
from training.objective import Objective
from training.remeasure import load_bundle_weights, remeasure
from training.trainer import Trainer

BOX_SIDES = {"local": 7, "wide": 19, "global": 24}


def test_every_prototype_starts_at_a_patch_of_its_own_scale(
    three_scales_patronus: Patronus, three_scales_dataset: Dataset
) -> None:
    encoder = three_scales_patronus.encoder
    with torch.no_grad():
        distances = encoder.distances(encoder.features(torch.from_numpy(to_x_0(three_scales_dataset.pixels))))
        between = torch.cdist(encoder.prototypes, encoder.prototypes).fill_diagonal_(torch.inf)
    assert distances.amin(dim=(0, 2, 3)).max() < 1e-5
    assert between.min() > 1e-3


def test_local_prototypes_start_where_they_would_without_the_others(
    three_scales_config: ModelConfig, three_scales_dataset: Dataset
) -> None:
    x_0 = torch.from_numpy(to_x_0(three_scales_dataset.pixels))
    starts = []
    for num_prototypes, wide, whole in ((6, 2, 2), (2, 0, 0)):
        torch.manual_seed(0)
        encoder = dataclasses.replace(
            three_scales_config.encoder,
            num_prototypes=num_prototypes,
            num_wide_prototypes=wide,
            num_global_prototypes=whole,
        )
        patronus = Patronus(dataclasses.replace(three_scales_config, encoder=encoder))
        initialise_prototypes(patronus, x_0, "patches", seed=3)
        starts.append(patronus.encoder.prototypes.detach()[:2])
    assert torch.equal(*starts)


def test_published_initial_weights_reach_the_further_layers(three_scales_config: ModelConfig) -> None:
    torch.manual_seed(0)
    patronus = Patronus(three_scales_config)
    initialise_encoder(patronus, "normal")
    weights = [w.flatten() for name, w in patronus.encoder.named_parameters() if name.endswith("weight")]
    assert len(weights) == 2 + 2 + 1  # local and wide convolutions, and the whole image's linear layer
    assert all(abs(weight.std().item() - 0.1) < 0.02 for weight in weights)


def test_all_scales_learn(three_scales_config: ModelConfig, three_scales_dataset: Dataset) -> None:
    torch.manual_seed(0)
    patronus = Patronus(three_scales_config)
    x_0 = torch.from_numpy(to_x_0(three_scales_dataset.pixels[:16]))
    initialise_prototypes(patronus, x_0.flip(3), "patches", seed=0)
    objective = Objective(patronus, TrainConfig(model=three_scales_config))
    losses = objective(x_0, torch.randn_like(x_0), torch.arange(16) * 2)
    losses.total.backward()
    for name, parameter in patronus.encoder.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert parameter.grad.abs().max() > 0, name
    assert bool((patronus.encoder.prototypes.grad.abs().amax(dim=1) > 0).all())  # type: ignore[union-attr]


def test_a_run_trains_all_scales(
    three_scales_config: ModelConfig, three_scales_dataset: Dataset, tmp_path: Path
) -> None:
    config = TrainConfig(model=three_scales_config, num_images=48, batch_size=16, log_every=1)
    trainer = Trainer(config, three_scales_dataset, tmp_path / "run", make_accelerator("cpu"))
    before = trainer.patronus.encoder.prototypes.detach().clone()
    trainer.run()
    assert bool((trainer.patronus.encoder.prototypes != before).any(dim=1).all())


def test_graphs_compute_what_torch_computes(
    three_scales_bundle: Path, three_scales_config: ModelConfig, tmp_path: Path
) -> None:
    """Mean distances on a grid of even sides in the bundle, and here summed ones on 11 rows of 8 cells."""
    assert Bundle.load(three_scales_bundle).metrics["export_largest_difference"] <= PARITY_TOLERANCE
    torch.manual_seed(0)
    config = dataclasses.replace(
        three_scales_config,
        image=dataclasses.replace(three_scales_config.image, height=26, width=20),
        encoder=dataclasses.replace(three_scales_config.encoder, distance="sum"),
    )
    assert config.grid_shape == (11, 8)
    assert export_graphs(Patronus(config).eval(), tmp_path) <= PARITY_TOLERANCE
    opsets = {
        next(entry.version for entry in onnx.load(path).opset_import if not entry.domain)
        for path in (tmp_path / ENCODER, tmp_path / DENOISER)
    }
    assert len(opsets) == 1  # what the encoder has gained needs no other opset


def test_exemplar_patches_have_the_size_of_their_scale_and_alone_hold_the_similarity(
    three_scales_bundle: Path, three_scales_dataset: Dataset
) -> None:
    bundle = Bundle.load(three_scales_bundle)
    assert bundle.pictures is not None
    patches = bundle.pictures.patches
    assert patches is not None
    patronus, boxes = load_bundle_weights(bundle), PrototypeBoxes(bundle.config)
    for j, scale in enumerate(boxes.scales):
        for k, box in enumerate(patches.boxes[j].tolist()):
            x0, y0, x1, y1 = box
            assert max(x1 - x0, y1 - y0) <= BOX_SIDES[scale]
            assert patches.pixels[j][k].shape == (1, y1 - y0, x1 - x0)
            image = three_scales_dataset.pixels[patches.image_indices[j, k]]
            np.testing.assert_array_equal(patches.pixels[j][k], crop(image, box))
            elsewhere = np.full_like(image, 77)
            elsewhere[:, y0:y1, x0:x1] = patches.pixels[j][k]
            with torch.no_grad():
                similarity, _ = patronus.encoder(torch.from_numpy(to_x_0(elsewhere[None])))
            # Another place may match better now, but this one still does as well, but for a distance near 0
            # in float32.
            assert similarity[0, j] >= patches.similarities[j, k] - 0.01
    assert {tuple(box) for box in patches.boxes[4:].reshape(-1, 4).tolist()} == {(0, 0, 24, 24)}


def test_prototypes_of_two_scales_do_not_count_as_one_for_the_same_box() -> None:
    """Where a wide patch covers the whole image, its box is a global prototype's."""
    config = ModelConfig()
    encoder = dataclasses.replace(
        config.encoder, num_prototypes=3, num_wide_prototypes=1, num_global_prototypes=1
    )
    image = dataclasses.replace(config.image, height=16, width=16)
    config = dataclasses.replace(config, encoder=encoder, image=image)
    boxes = PrototypeBoxes(config)
    assert boxes.box(1, 0) == boxes.box(2, 0) == (0, 0, 16, 16)
    s = np.random.default_rng(0).random((20, 3), dtype=np.float32)
    s[0] = 2.0  # the best image of all
    figures = prototype_figures(config, s, np.zeros((20, 3), np.int64), s[1:])
    assert figures["num_distinct_exemplars"] == 3


def test_measuring_again_finds_the_same(
    three_scales_bundle: Path, three_scales_dataset: Dataset, tmp_path: Path
) -> None:
    again = remeasure(
        three_scales_bundle,
        tmp_path / "again",
        three_scales_dataset,
        three_scales_dataset,
        dataset_name="tiny images",
        emergence_samples=8,
    )
    before = Bundle.load(three_scales_bundle)
    assert before.config == again.config
    assert before.statistics is not None
    assert again.statistics is not None
    np.testing.assert_array_equal(before.statistics.quantiles, again.statistics.quantiles)
    assert again.path(PICTURES).read_bytes() == before.path(PICTURES).read_bytes()


def test_best_cells_of_a_wide_prototype_lie_in_its_box(
    three_scales_patronus: Patronus, three_scales_dataset: Dataset
) -> None:
    activations, cells = encode_all(three_scales_patronus, three_scales_dataset.pixels)
    assert activations.shape == cells.shape == (64, 6)
    assert bool((cells[:, 4:] == 0).all())  # a constant map is best at its first cell
    found = PrototypeBoxes(three_scales_patronus.config).at(np.arange(6), cells)
    assert found.shape == (64, 6, 4)
