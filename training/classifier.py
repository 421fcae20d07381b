"""A small classifier whose features say how near generated images are to real ones.

It learns the classes of a data set; where there are none, its attributes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from model.transforms import Pixels, to_x_0
from training.data import UNKNOWN, Dataset

MAX_STEPS = 600
MAX_EPOCHS = 100
BATCH_SIZE = 128
LEARNING_RATE = 4e-3
FEATURE_WIDTH = 64


class Classifier(nn.Module):
    """Three strided, normalised convolutions, an average over positions, 64 features, one score per class
    or attribute."""

    def __init__(self, channels: int, num_outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * 128, FEATURE_WIDTH),
            nn.ReLU(),
        )
        self.head = nn.Linear(FEATURE_WIDTH, num_outputs)

    def forward(self, x_0: Tensor) -> Tensor:
        """x_0 (B, C, H, W) in [-1, 1] -> scores (B, num_outputs)."""
        scores: Tensor = self.head(self.body(x_0))
        return scores

    @torch.no_grad()
    def features(self, pixels: Pixels, *, batch_size: int = 512) -> npt.NDArray[np.float32]:
        """pixels (N, C, H, W) uint8 -> penultimate features (N, 64)."""
        batches = [
            self.body(self._x_0(pixels[start : start + batch_size])).cpu().numpy()
            for start in range(0, len(pixels), batch_size)
        ]
        return np.concatenate(batches)

    @torch.no_grad()
    def accuracy(self, dataset: Dataset) -> float:
        """Share of images whose highest score is their label's; of attributes, share of known entries
        that the sign of their score tells right."""
        features = torch.from_numpy(self.features(dataset.pixels)).to(self.head.weight.device)
        scores = self.head(features).cpu().numpy()
        if dataset.class_names:
            return float((scores.argmax(axis=1) == dataset.labels).mean())
        known = dataset.attributes != UNKNOWN
        return float(((scores > 0.0) == (dataset.attributes == 1))[known].mean())

    def _x_0(self, pixels: Pixels) -> Tensor:
        return torch.from_numpy(to_x_0(pixels)).to(self.head.weight.device)


def can_classify(dataset: Dataset) -> bool:
    """Whether there is something to learn: classes, or attributes of which an entry is known."""
    return bool(dataset.class_names) or bool((dataset.attributes != UNKNOWN).any())


def train_classifier(dataset: Dataset, *, device: str = "cpu", seed: int = 0) -> Classifier:
    """A classifier of `dataset` after a fixed number of steps, the same one for the same seed and machine.

    Cross-entropy over classes; without classes, binary cross-entropy over the known entries of the
    attributes. Raises ValueError where `can_classify` is false.
    """
    if not can_classify(dataset):
        raise ValueError("the data set has neither classes nor attributes to learn")
    rng = np.random.default_rng(seed)
    size = min(BATCH_SIZE, len(dataset))
    num_steps = min(MAX_STEPS, MAX_EPOCHS * len(dataset) // size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        channels = dataset.pixels.shape[1]
        num_outputs = len(dataset.class_names or dataset.attribute_names)
        classifier = Classifier(channels, num_outputs).to(device)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=LEARNING_RATE)
    targets = torch.from_numpy(dataset.labels if dataset.class_names else dataset.attributes).to(device)
    for step in tqdm(range(num_steps), desc="classifier", unit="step", leave=False):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1.0 - step / num_steps)
        indices = rng.choice(len(dataset), size, replace=False)
        scores = classifier(classifier._x_0(dataset.pixels[indices]))
        loss = _loss(scores, targets[indices], classes=bool(dataset.class_names))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return classifier.eval().requires_grad_(False)


def _loss(scores: Tensor, targets: Tensor, *, classes: bool) -> Tensor:
    """scores (B, num_outputs); targets (B,) labels, or (B, num_outputs) of 1, 0 or UNKNOWN -> scalar."""
    if classes:
        return F.cross_entropy(scores, targets)
    known = (targets != UNKNOWN).to(scores.dtype)
    losses = F.binary_cross_entropy_with_logits(scores, (targets == 1).to(scores.dtype), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1.0)
