"""Real patches and reference images that a bundle keeps, so that people can see what s means."""

from __future__ import annotations

import numpy as np
import torch

from model.bundle import Pictures
from model.patronus import Patronus
from model.transforms import Pixels, to_x_0
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
) -> Pictures:
    """The training patch nearest to each prototype, and the first test images of every class in turn."""
    config = patronus.config
    best = train_activations.argmax(axis=0)  # (m,)
    prototypes = np.arange(config.num_prototypes)
    boxes = [
        config.receptive_field.box(int(cell), config.image.height, config.image.width)
        for cell in train_cells[best, prototypes]
    ]
    return Pictures(
        exemplar_images=train.pixels[best],
        exemplar_boxes=np.array(boxes, dtype=np.int64),
        exemplar_similarities=train_activations[best, prototypes].astype(np.float32),
        reference_images=test.pixels[_in_turn(test.labels, num_references)],
    )


def _in_turn(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of the first, second … image of every class, classes taking turns."""
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = labels == label
        rank[members] = np.arange(members.sum())
    return np.lexsort((labels, rank))[:count]
