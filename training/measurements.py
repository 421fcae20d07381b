"""Everything that a bundle says of its prototypes, measured on a data set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import Tensor

from model.attributes import Attributes
from model.bundle import Pictures, Prototype
from model.config import PriorConfig
from model.effects import MeasuredEffects
from model.emergence import Emergence
from model.patronus import Patronus
from model.statistics import ActivationStatistics
from training.data import Dataset
from training.evaluation.attributes import measure_attributes
from training.evaluation.effects import measure_effects
from training.evaluation.emergence import NUM_STEPS, measure_emergence, order_stability
from training.exemplars import choose_pictures, encode_all
from training.prior import prior_table
from training.sampling import run_steps

log = logging.getLogger(__name__)

EMERGENCE_SAMPLES = 256
EMERGENCE_SEED = 0
EFFECT_SAMPLES = 32
EFFECT_STEPS = 10
EFFECT_SEED = 1

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
DrawScores = Callable[[int], Float32]
"""Normal scores (n, m) of so many activation vectors, by a latent prior."""


@dataclass(frozen=True)
class Measurements:
    """What goes into a bundle. `emergence` are the timesteps (n, m) of n images, None if not measured, as
    `effects` are; s_from: where s of both kinds of generated images came from."""

    statistics: ActivationStatistics
    pictures: Pictures
    attributes: Attributes | None
    emergence: Int64 | None
    effects: MeasuredEffects | None
    s_from: str
    emergence_steps: int
    effect_steps: int

    def prototypes(self, names: Sequence[str | None]) -> tuple[Prototype, ...]:
        """The manifest's entry of each prototype, with these names."""
        if self.emergence is None:
            return tuple(Prototype(name) for name in names)
        over_images = Emergence.over_images(self.emergence)
        share = over_images.count / len(self.emergence)
        prototypes = []
        for j, name in enumerate(names):
            emerges = over_images.count[j] > 0
            low, median, high = (float(x[j]) for x in (over_images.low, over_images.median, over_images.high))
            prototypes.append(
                Prototype(
                    name=name,
                    emergence_timestep=round(median) if emerges else None,
                    emergence_quartiles=(low, high) if emerges else None,
                    emergence_share=round(float(share[j]), 4),
                )
            )
        return tuple(prototypes)

    def figures(self) -> dict[str, Any]:
        """How it was measured, and how far its order can be trusted, for the manifest's metrics."""
        figures: dict[str, Any] = {}
        if self.emergence is not None:
            figures["emergence"] = {
                "num_images": len(self.emergence),
                "s_from": self.s_from,
                "sampler": "ddim",
                "steps": self.emergence_steps,
                "seed": EMERGENCE_SEED,
            }
            stability = order_stability(self.emergence)
            if stability is not None:
                figures["emergence"]["order_stability"] = round(stability, 4)
        if self.effects is not None:
            figures["effects"] = {
                "num_samples": self.effects.num_samples,
                "s_from": self.s_from,
                "sampler": "ddim",
                "steps": self.effect_steps,
                "seed": EFFECT_SEED,
            }
        return figures


def measure(
    patronus: Patronus,
    train: Dataset,
    test: Dataset,
    *,
    draw_scores: DrawScores | None,
    emergence_samples: int = EMERGENCE_SAMPLES,
    effect_samples: int = EFFECT_SAMPLES,
    device: str = "cpu",
) -> Measurements:
    """Statistics and patches from `train`, attributes from the labels of both, when prototypes emerge, and
    their effects on one another.

    Emergence is measured on `emergence_samples` generated images (0: not at all), whose s is drawn by
    `draw_scores`, or where that is None taken from as many test images, or from all if there are fewer. It
    costs 50 calls of the denoiser an image. Effects are measured on `effect_samples` (0 or at least 2), whose
    s comes from there too, and not at all where there is one test image only; they cost 20 calls an image and
    prototype.
    """
    patronus.to(device)
    log.info("encoding %d training and %d test images", len(train), len(test))
    train_activations, cells = encode_all(patronus, train.pixels)
    test_activations, _ = encode_all(patronus, test.pixels)
    statistics = ActivationStatistics.measure(train_activations)

    def drawn(count: int) -> Float32:
        if draw_scores is None:
            order = np.random.default_rng(EMERGENCE_SEED).permutation(len(test))
            return test_activations[order[:count]]
        return statistics.from_scores(draw_scores(count))

    emergence, effects = None, None
    if emergence_samples:
        emergence = measure_emergence(patronus, drawn(emergence_samples), seed=EMERGENCE_SEED)
    if effect_samples and len(s := drawn(effect_samples)) > 1:  # one does not say how effects differ
        effects = measure_effects(patronus, s, statistics, steps=EFFECT_STEPS, seed=EFFECT_SEED)
    num_timesteps = patronus.config.schedule.num_timesteps
    return Measurements(
        statistics=statistics,
        pictures=choose_pictures(patronus, train, train_activations, cells, test),
        attributes=measure_attributes(train, test, train_activations, test_activations, statistics),
        emergence=emergence,
        effects=effects,
        s_from="test images" if draw_scores is None else "prior",
        emergence_steps=min(NUM_STEPS, num_timesteps),
        effect_steps=min(EFFECT_STEPS, num_timesteps),
    )


def graph_scores(path: Path, config: PriorConfig, *, seed: int = EMERGENCE_SEED) -> DrawScores:
    """Draws from the exported prior at `path`, as the service does."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])

    def step(*values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        names = ("x_t", "timesteps", "memory", "noise", "coefficients")
        inputs = {name: value.numpy() for name, value in zip(names, values, strict=True)}
        x_next, memory_next, x_0_hat = session.run(["x_next", "memory_next", "x_0_hat"], inputs)
        return torch.from_numpy(x_next), torch.from_numpy(memory_next), torch.from_numpy(x_0_hat)

    def draw(count: int) -> Float32:
        generator = torch.Generator().manual_seed(seed)
        z_T = torch.randn((count, config.num_prototypes), generator=generator)
        scores: Float32 = run_steps(step, prior_table(config), z_T, generator=generator).numpy()
        return scores

    return draw
