"""An independent judge of cartoon faces: a classifier of their labels that never saw the model under test."""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from model.config import ImageConfig
from model.transforms import Pixels, to_x_0
from training.data.cartoon_faces.attributes import LABELS
from training.data.cartoon_faces.drawing import render
from training.data.cartoon_faces.faces import sample_faces
from training.data.cartoon_faces.source import CARTOON_FACES, cartoon_faces_source
from training.data.pixel_cache import default_cache_directory

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SEED = 1_000_003
"""Of the faces that the judge learns from: neither split of the data set, and without any coupling."""
NUM_FACES, NUM_TEST_FACES = 16_384, 2_048
BATCH_SIZE, NUM_STEPS, LEARNING_RATE = 128, 900, 2e-3
NAMES = tuple(label.name for label in LABELS)
ATTRIBUTES = tuple(label.attribute.name for label in LABELS)
"""Of each label the attribute: values of one attribute exclude one another."""


@dataclass(frozen=True, eq=False)
class Judge:
    """Says which labels (K, `NAMES`) pictures show; accuracy (K,), balanced, is on faces new to it."""

    network: nn.Module
    accuracy: Float64

    @torch.no_grad()
    def probabilities(self, pixels: Pixels) -> Float64:
        """pixels (N, 3, H, W) uint8 -> (N, K)."""
        x_0 = torch.from_numpy(to_x_0(pixels))
        scores = [self.network(x_0[start : start + 256]) for start in range(0, len(x_0), 256)]
        return np.asarray(torch.cat(scores).double().sigmoid().numpy())

    def decisions(self, pixels: Pixels) -> Bools:
        """Whether each picture has each label, (N, K)."""
        return np.asarray(self.probabilities(pixels) > 0.5)


def load_judge(
    size: int,
    directory: Path | None = None,
    *,
    num_faces: int = NUM_FACES,
    num_steps: int = NUM_STEPS,
) -> Judge:
    """The judge for pictures of `size` pixels: kept in `directory`, by default the user's cache, and trained
    where it is not there.

    One that learned from other drawings, or otherwise than this module says, is not taken.
    """
    made_of = cartoon_faces_source(CARTOON_FACES, "test", ImageConfig(3, size, size)).fingerprint()
    made_of += f"{num_faces} {num_steps} {inspect.getsource(sys.modules[__name__])}"
    digest = hashlib.sha256(made_of.encode()).hexdigest()
    path = (directory or default_cache_directory()) / f"judge-{size}-{digest[:12]}.pt"
    if path.exists():
        network = _network()
        network.load_state_dict(torch.load(path, weights_only=True))
        return _examined(network.eval(), size)
    judge = train_judge(size, num_faces=num_faces, num_steps=num_steps)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    torch.save(judge.network.state_dict(), partial)
    partial.replace(path)
    return judge


def train_judge(size: int, *, num_faces: int = NUM_FACES, num_steps: int = NUM_STEPS) -> Judge:
    """A new judge for pictures of `size` pixels, the same one every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = _network()
        _train(network, size, num_faces, num_steps)
    return _examined(network.eval(), size)


def _examined(network: nn.Module, size: int) -> Judge:
    """A judge, with its accuracy on faces that it did not learn from."""
    faces = sample_faces(SEED, NUM_TEST_FACES, start=NUM_FACES)
    has = faces.labels() == 1
    found = Judge(network, np.zeros(len(NAMES))).decisions(render(faces, size))
    hits = (found & has).sum(axis=0) / has.sum(axis=0)
    rejections = (~found & ~has).sum(axis=0) / (~has).sum(axis=0)
    return Judge(network, (hits + rejections) / 2.0)


def others_of(name: str) -> list[int]:
    """Indices of the labels that belong to other attributes than the label `name` does."""
    attribute = ATTRIBUTES[NAMES.index(name)]
    return [k for k, other in enumerate(ATTRIBUTES) if other != attribute]


def _network() -> nn.Sequential:
    """Four strided convolutions, then all positions: smiles and tilts are where they are."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (32, 64, 96, 128):
        layers += [
            nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        channels = width
    layers += [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16 * channels, len(NAMES))]
    return nn.Sequential(*layers)


def _train(network: nn.Module, size: int, num_faces: int, num_steps: int) -> None:
    faces = sample_faces(SEED, num_faces)
    pixels, labels = render(faces, size), torch.from_numpy(faces.labels()).float()
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=num_steps)
    rng = np.random.default_rng(SEED)
    for _ in tqdm(range(num_steps), desc="judge", unit="step", leave=False):
        chosen = rng.integers(len(pixels), size=BATCH_SIZE)
        scores = network(_degraded(torch.from_numpy(to_x_0(pixels[chosen]))))
        loss = functional.binary_cross_entropy_with_logits(scores, labels[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


def _degraded(x_0: Tensor) -> Tensor:
    """Half of the pictures blurred, all with a little noise: what is generated is no cleaner."""
    blurred = functional.avg_pool2d(functional.pad(x_0, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    is_blurred = torch.rand(len(x_0), 1, 1, 1) < 0.5
    mixed = torch.where(is_blurred, blurred, x_0)
    return mixed + 0.1 * torch.rand(len(x_0), 1, 1, 1) * torch.randn_like(x_0)
