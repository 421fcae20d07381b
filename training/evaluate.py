"""Measure a trained model on the test split: is s used, readable, and enough to draw the image?"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from model.config import ModelConfig
from model.encoder import SIMILARITY_EPSILON
from model.patronus import Patronus
from model.samplers import Sampler, SamplerTable, ddim, ddim_inversion, sampler_table
from model.schedule import NoiseSchedule
from model.statistics import ActivationStatistics
from model.transforms import Pixels, from_x_0, to_x_0
from training.classifier import train_classifier
from training.data import Dataset
from training.exemplars import encode_all
from training.frechet import feature_distance
from training.losses import activation_correlation
from training.probe import linear_probe
from training.sampling import run_table
from training.trainer import conditioning_losses

EVALUATION = "evaluation.json"

CONDITIONING_TIMES = (0.1, 0.3, 0.6)  # of T: t = 100, 300, 600 where T = 1000
NUM_CONDITIONING_IMAGES = 1000
NUM_RECONSTRUCTIONS = 256
INVERSION_STEPS = (20, 50)
SAMPLING_STEPS = (10, 20, 50)
SAMPLERS: tuple[Sampler, ...] = ("ddim", "dpmpp_2m")
RESAMPLED_STEPS = (20,)
RESAMPLED_SAMPLERS: tuple[Sampler, ...] = ("dpmpp_2m",)
LARGEST_PSNR_DB = 100.0
BATCH_SIZE = 128

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


class EvaluationError(Exception):
    """A run has no readable evaluation, or one was asked for that the data cannot give."""


def evaluate(
    patronus: Patronus, train: Dataset, test: Dataset, *, num_samples: int, seed: int = 0
) -> dict[str, Any]:
    """Figures of a model on the test split, as JSON values without NaN.

    `num_samples` images are drawn by each sampler and compared with the whole test split, and so are as
    many real training images, which shows how near equally many images can come. "learned_s" is the s of
    test images (as in the published rows), "resampled_s" is drawn from the training split's statistics.
    The denoiser costs 180 calls a sample and 42,000 calls for everything else. Raises EvaluationError.
    """
    if not 2 <= num_samples <= min(len(train), len(test)):
        largest = min(len(train), len(test))
        raise EvaluationError(f"num_samples must be 2 to {largest}, not {num_samples}")
    cpu = patronus.activation_mean.device.type == "cpu"
    layout = torch.channels_last if cpu else torch.contiguous_format  # a fifth faster there
    patronus = copy.deepcopy(patronus).eval()
    patronus.to(memory_format=layout)  # type: ignore[call-overload]
    train_activations, train_cells = encode_all(patronus, train.pixels)
    test_activations, _ = encode_all(patronus, test.pixels)
    probe = linear_probe(train_activations, train.labels, test_activations, test.labels)
    classifier = train_classifier(train, device=str(patronus.activation_mean.device))
    # One random order of the test split: every measurement takes its first images.
    order = np.random.default_rng(seed).permutation(len(test))
    pixels, activations = test.pixels[order], test_activations[order]
    statistics = ActivationStatistics.measure(train_activations)
    resampled_s = statistics.resample(np.random.default_rng(seed), num_samples)
    with tqdm(desc="denoiser", unit="image-call", leave=False) as progress:
        sampling = _Sampling(patronus, progress, seed)
        samples = _samples(sampling, activations[:num_samples], resampled_s)
        reconstruction = _reconstruction(sampling, pixels, activations, samples)

    def fd_classifier(generated: Pixels) -> float:
        return feature_distance(classifier.features(generated), real_features)

    real_features = classifier.features(test.pixels)
    train_order = np.random.default_rng(seed).permutation(len(train))[:num_samples]
    return {
        "num_train_images": len(train),
        "num_test_images": len(test),
        "conditioning": _conditioning(patronus, pixels, activations),
        "probe": {"accuracy_test": probe.test, "accuracy_5_fold": probe.cross_validated},
        "reconstruction": reconstruction,
        "prototypes": _prototypes(patronus.config, train_activations, train_cells, test_activations),
        "samples": {
            "num_images": num_samples,
            "classifier_accuracy_test": classifier.accuracy(test),
            "fd_classifier_real_train_images": fd_classifier(train.pixels[train_order]),
            **{f"fd_classifier_{name}": fd_classifier(drawn) for name, drawn in samples.items()},
        },
    }


def write_evaluation(run: Path, metrics: Mapping[str, Any]) -> None:
    """Keep the figures as evaluation.json in the run directory, and print them as a table.

    Raises EvaluationError where a figure is not finite.
    """
    wrong = [name for name, value in _flat(metrics) if isinstance(value, float) and not math.isfinite(value)]
    if wrong:
        raise EvaluationError(f"not finite, did training diverge? {', '.join(wrong)}")
    text = json.dumps(dict(metrics), indent=1, allow_nan=False)
    (run / EVALUATION).write_text(text + "\n", encoding="utf-8")
    rows = list(_flat(metrics))
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print(f"{name:{width}}  {value:.4f}" if isinstance(value, float) else f"{name:{width}}  {value}")


def read_evaluation(run: Path) -> dict[str, Any]:
    """The figures that `write_evaluation` kept. Raises EvaluationError."""
    path = run / EVALUATION
    try:
        metrics = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise EvaluationError(f"{path} is missing: run `python -m training evaluate` first") from error
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} cannot be read: {error}") from error
    if not isinstance(metrics, dict):
        raise EvaluationError(f"{path} must hold an object, not {type(metrics).__name__}")
    return metrics


def mean_psnr_db(expected: Pixels, found: Pixels) -> float:
    """Mean over images (N, ...) uint8 of the peak signal-to-noise ratio in dB, at most 100 per image."""
    difference = (expected.astype(np.float64) - found.astype(np.float64)).reshape(len(expected), -1)
    mean_squares = np.maximum(np.square(difference).mean(axis=1), 255.0**2 / 10 ** (LARGEST_PSNR_DB / 10))
    return float((10.0 * np.log10(255.0**2 / mean_squares)).mean())


def distance_at(similarities: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The distance that has a given similarity: the inverse of `model.encoder.similarity`, at least 0.

    s = log((d + 1) / (d + δ)) gives d = (1 - δ eˢ) / (eˢ - 1); at most 1e7, where s vanishes.
    """
    s = similarities.astype(np.float64)
    distances = (1.0 - SIMILARITY_EPSILON * np.exp(s)) / np.maximum(np.expm1(s), 1e-7)
    return np.clip(distances, 0.0, 1e7)


class _Sampling:
    """Runs sampler tables over many images in batches, under one progress bar."""

    def __init__(self, patronus: Patronus, progress: tqdm[Any], seed: int) -> None:
        self.patronus = patronus
        self.schedule = NoiseSchedule.from_config(patronus.config.schedule)
        self.progress = progress
        self.seed = seed

    def draw(self, sampler: Sampler, steps: int, activations: Float32) -> Pixels:
        """Images (N, C, H, W) from s (N, m) and random x_T, the same x_T for every sampler."""
        generator = torch.Generator().manual_seed(self.seed)
        x_T = torch.randn((len(activations), *self.patronus.config.image.shape), generator=generator)
        table = sampler_table(sampler, self.schedule, steps, clip=1.0)
        return self._run([table], x_T, activations)

    def reconstruct(self, steps: int, pixels: Pixels, activations: Float32) -> Pixels:
        """Images (N, C, H, W) inverted to x_T with DDIM and sampled again with as many steps."""
        tables = [ddim_inversion(self.schedule, steps), ddim(self.schedule, steps)]
        return self._run(tables, torch.from_numpy(to_x_0(pixels)), activations)

    def _run(self, tables: Sequence[SamplerTable], x: Tensor, activations: Float32) -> Pixels:
        device = self.patronus.activation_mean.device
        finished = []
        for start in range(0, len(x), BATCH_SIZE):
            x_t = x[start : start + BATCH_SIZE].to(device)
            s = torch.from_numpy(activations[start : start + BATCH_SIZE]).to(device)
            for table in tables:
                x_t = run_table(self.patronus, table, x_t, s)
                self.progress.update(len(table) * len(x_t))
            finished.append(from_x_0(x_t.cpu().numpy()))
        return np.concatenate(finished)


def _samples(sampling: _Sampling, learned_s: Float32, resampled_s: Float32) -> dict[str, Pixels]:
    """Images by every sampler and number of steps that the schedule allows, by a name that says which."""
    longest = sampling.schedule.num_timesteps
    return {
        _sample_name(sampler, steps, source): sampling.draw(sampler, steps, s)
        for source, s, samplers, choices in (
            ("learned_s", learned_s, SAMPLERS, SAMPLING_STEPS),
            ("resampled_s", resampled_s, RESAMPLED_SAMPLERS, RESAMPLED_STEPS),
        )
        for sampler in samplers
        for steps in choices
        if steps <= longest
    }


def _sample_name(sampler: str, steps: int, source: str) -> str:
    return f"{sampler}_{steps}_steps_{source}"


def _reconstruction(
    sampling: _Sampling, pixels: Pixels, activations: Float32, samples: Mapping[str, Pixels]
) -> dict[str, Any]:
    """PSNR of images from their own s: by way of their inverted x_T, and of a random one (in `samples`)."""
    count = min(NUM_RECONSTRUCTIONS, len(pixels))
    result: dict[str, Any] = {"num_images": count}
    for steps in INVERSION_STEPS:
        if steps <= sampling.schedule.num_timesteps:
            found = sampling.reconstruct(steps, pixels[:count], activations[:count])
            result[f"ddim_inversion_{steps}_steps_psnr_db"] = mean_psnr_db(pixels[:count], found)
    from_random = samples.get(_sample_name("ddim", INVERSION_STEPS[-1], "learned_s"))
    if from_random is not None:
        result[f"random_noise_{INVERSION_STEPS[-1]}_steps_psnr_db"] = mean_psnr_db(
            pixels[: len(from_random)], from_random
        )
    return result


def _conditioning(patronus: Patronus, pixels: Pixels, activations: Float32) -> dict[str, Any]:
    """eps-loss with each image's own s and with that of another image, who is never itself."""
    device = patronus.activation_mean.device
    count = min(NUM_CONDITIONING_IMAGES, len(pixels))
    batches = np.array_split(np.arange(count), math.ceil(count / BATCH_SIZE))  # 2 or more images each
    result: dict[str, Any] = {"num_images": count}
    for time in CONDITIONING_TIMES:
        timestep = round(time * patronus.config.schedule.num_timesteps)
        losses = []
        for seed, batch in enumerate(batches):
            x_0 = torch.from_numpy(to_x_0(pixels[batch])).to(device)
            s = torch.from_numpy(activations[batch]).to(device)
            losses.append(conditioning_losses(patronus, x_0, s, timestep, seed=seed))
        weights = [len(batch) / count for batch in batches]
        true, shuffled = (float(x) for x in np.average(losses, axis=0, weights=weights))
        result[f"t_{timestep}"] = {
            "eps_loss_true": true,
            "eps_loss_shuffled": shuffled,
            "gap": 1.0 - true / shuffled,
        }
    return result


def _prototypes(
    config: ModelConfig, train_activations: Float32, train_cells: Int64, test_activations: Float32
) -> dict[str, Any]:
    """Whether prototypes are distinct from one another, vary over images, and lie near real patches."""
    correlation = activation_correlation(torch.from_numpy(test_activations)).abs().fill_diagonal_(0.0)
    best = train_activations.argmax(axis=0)  # (m,)
    m = np.arange(config.num_prototypes)
    height, width = config.image.height, config.image.width
    exemplars = {
        (int(image), config.receptive_field.box(int(cell), height, width))
        for image, cell in zip(best, train_cells[best, m], strict=True)
    }
    return {
        "num_prototypes": config.num_prototypes,
        "num_distinct_exemplars": len(exemplars),
        "largest_correlation_mean": float(correlation.amax(dim=1).mean()),
        "raw_spread_mean": float(test_activations.std(axis=0).mean()),
        "nearest_train_patch_distance_mean": float(distance_at(train_activations[best, m]).mean()),
    }


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
