"""Real patches and reference images that a bundle keeps, so that people can see what s means."""

from __future__ import annotations

import numpy as np
import torch

from model.bundle import Patches, Pictures
from model.config import ModelConfig
from model.patronus import Patronus
from model.prototype_boxes import PrototypeBoxes
from model.transforms import Pixels, crop, to_x_0
from training.data import Dataset


@torch.no_grad()
def encode_all(patronus: Patronus, pixels: Pixels, *, batch_size: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """pixels (N, C, H, W) -> activations (N, m) float32 and the flat grid cell of each (N, m) int64."""
    device = patronus.activation_mean.device
    activations, cells = [], []
    for start in range(0, len(pixels), batch_size):
        x_0 = torch.from_numpy(to_x_0(pixels[start : start + batch_size])).to(device)
        s, maps = patronus.encoder(x_0)
        activations.append(s.cpu().numpy())
        cells.append(maps.flatten(2).argmax(dim=2).cpu().numpy())
    return np.concatenate(activations), np.concatenate(cells)


def choose_pictures(
    patronus: Patronus,
    train: Dataset,
    train_activations: np.ndarray,
    train_cells: np.ndarray,
    test: Dataset,
    *,
    num_references: int = 32,
    num_patches: int = 8,
) -> Pictures:
    """The training patches nearest to each prototype, and the first test images of every class in turn.

    Of one image there is one patch at most, so no more than there are training images; the nearest one's
    whole image is the exemplar.
    """
    patches = nearest_patches(patronus.config, train.pixels, train_activations, train_cells, num_patches)
    return Pictures(
        exemplar_images=train.pixels[patches.image_indices[:, 0]],
        exemplar_boxes=patches.boxes[:, 0],
        exemplar_similarities=patches.similarities[:, 0],
        reference_images=test.pixels[_in_turn(test.labels, num_references)],
        patches=patches,
    )


def nearest_patches(
    config: ModelConfig, pixels: Pixels, activations: np.ndarray, cells: np.ndarray, count: int
) -> Patches:
    """The patches of `count` images nearest to each prototype, by s (N, m) and best grid cells (N, m)."""
    nearest = np.argsort(-activations, axis=0, kind="stable")[:count].T  # (m, k)
    prototypes = np.arange(config.num_prototypes)[:, None]
    boxes = PrototypeBoxes(config).at(prototypes, cells[nearest, prototypes])  # (m, k, 4)
    return Patches(
        pixels=tuple(
            tuple(crop(pixels[image], box) for image, box in zip(images, row, strict=True))
            for images, row in zip(nearest.tolist(), boxes, strict=True)
        ),
        boxes=boxes,
        similarities=activations[nearest, prototypes].astype(np.float32),
        image_indices=nearest.astype(np.int64),
    )


def _in_turn(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of the first, second … image of every class, classes taking turns."""
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = labels == label
        rank[members] = np.arange(members.sum())
    return np.lexsort((labels, rank))[:count]
