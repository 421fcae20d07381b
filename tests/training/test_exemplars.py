from __future__ import annotations

import numpy as np
import torch

from model.config import ModelConfig
from model.patronus import Patronus
from model.transforms import to_x_0
from training.data import Dataset
from training.exemplars import choose_pictures, encode_all


def test_batches_do_not_change_what_is_encoded(tiny_config: ModelConfig, tiny_dataset: Dataset) -> None:
    torch.manual_seed(0)
    patronus = Patronus(tiny_config).eval()
    activations, cells = encode_all(patronus, tiny_dataset.pixels, batch_size=7)
    with torch.no_grad():
        expected, maps = patronus.encoder(torch.from_numpy(to_x_0(tiny_dataset.pixels)))
    np.testing.assert_allclose(activations, expected.numpy(), rtol=1e-4, atol=1e-5)
    best = np.take_along_axis(maps.flatten(2).numpy(), cells[:, :, None], axis=2)[:, :, 0]
    np.testing.assert_allclose(best, activations, rtol=1e-4, atol=1e-5)


def test_the_exemplar_patch_alone_holds_the_similarity(
    tiny_config: ModelConfig, tiny_dataset: Dataset
) -> None:
    torch.manual_seed(0)
    patronus = Patronus(tiny_config).eval()
    activations, cells = encode_all(patronus, tiny_dataset.pixels)
    pictures = choose_pictures(patronus, tiny_dataset, activations, cells, tiny_dataset)
    for j, (x0, y0, x1, y1) in enumerate(pictures.exemplar_boxes.tolist()):
        elsewhere = np.full_like(pictures.exemplar_images[j], 77)
        elsewhere[:, y0:y1, x0:x1] = pictures.exemplar_images[j][:, y0:y1, x0:x1]
        with torch.no_grad():
            _, maps = patronus.encoder(torch.from_numpy(to_x_0(elsewhere[None])))
        cell = cells[activations[:, j].argmax(), j]
        found = maps[0, j].flatten()[cell].item()
        np.testing.assert_allclose(found, pictures.exemplar_similarities[j], rtol=1e-4, atol=1e-5)


def test_references_take_the_classes_in_turn(tiny_config: ModelConfig, tiny_dataset: Dataset) -> None:
    patronus = Patronus(tiny_config).eval()
    activations, cells = encode_all(patronus, tiny_dataset.pixels)
    pictures = choose_pictures(patronus, tiny_dataset, activations, cells, tiny_dataset, num_references=20)
    expected = [np.flatnonzero(tiny_dataset.labels == label)[turn] for turn in (0, 1) for label in range(10)]
    np.testing.assert_array_equal(pictures.reference_images, tiny_dataset.pixels[expected])


def test_patches_come_from_as_many_images_nearest_first(
    tiny_config: ModelConfig, tiny_dataset: Dataset
) -> None:
    torch.manual_seed(0)
    patronus = Patronus(tiny_config).eval()
    activations, cells = encode_all(patronus, tiny_dataset.pixels)
    patches = choose_pictures(patronus, tiny_dataset, activations, cells, tiny_dataset, num_patches=5).patches
    assert patches is not None
    assert patches.boxes.shape == (4, 5, 4)
    for j, images in enumerate(patches.image_indices.tolist()):
        assert len(set(images)) == 5
        others = np.delete(activations[:, j], images)
        np.testing.assert_array_equal(patches.similarities[j], np.sort(activations[images, j])[::-1])
        assert patches.similarities[j].min() >= others.max()


def test_there_are_no_more_patches_than_images(tiny_config: ModelConfig, tiny_dataset: Dataset) -> None:
    patronus = Patronus(tiny_config).eval()
    few = Dataset(tiny_dataset.pixels[:3], tiny_dataset.labels[:3], tiny_dataset.class_names)
    activations, cells = encode_all(patronus, few.pixels)
    patches = choose_pictures(patronus, few, activations, cells, few).patches
    assert patches is not None
    assert [len(row) for row in patches.pixels] == [3] * 4
