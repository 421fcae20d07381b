"""Measure a trained model on the test split: is s used, readable, and enough to draw the image?"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from model.patronus import Patronus
from model.statistics import ActivationStatistics
from model.transforms import Pixels, to_x_0
from training.classifier import can_classify, train_classifier
from training.data import Dataset
from training.evaluation.error import EvaluationError
from training.evaluation.inception import load_inception
from training.evaluation.lpips import Lpips, load_lpips
from training.evaluation.prototypes import prototype_figures
from training.evaluation.reconstruction import mean_psnr_db, mean_squared_error, mean_ssim
from training.evaluation.record import EVALUATION, EVALUATION_TABLE, read_evaluation, write_evaluation
from training.evaluation.samples import (
    BATCH_SIZE,
    LEARNED_S,
    PRIOR_S,
    RESAMPLED_S,
    Drawing,
    ImageSampling,
    drawings,
)
from training.evaluation.tad import one_vs_rest, total_auroc_difference
from training.evaluation.torchscript import file_digest
from training.evaluation.weights import require_weights, weights_digest
from training.exemplars import encode_all
from training.frechet import feature_distance
from training.probe import FOLDS, attribute_probe, linear_probe
from training.trainer import conditioning_losses

__all__ = [
    "EVALUATION",
    "EVALUATION_TABLE",
    "SAMPLING_STEPS",
    "EvaluationError",
    "evaluate",
    "read_evaluation",
    "require_weights",
    "weights_digest",
    "write_evaluation",
]

CONDITIONING_TIMES = (0.1, 0.3, 0.6)  # of T: t = 100, 300, 600 where T = 1000
NUM_CONDITIONING_IMAGES = 1000
NUM_RECONSTRUCTIONS = 256
INVERSION_STEPS = (20, 50)
SAMPLING_STEPS = (10, 20, 50)
NO_LABELS = "the data set has neither classes nor attributes"

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
SampleS = Callable[[np.random.Generator, int], Float32]
"""Draws so many activation vectors (count, m), as a latent prior does."""


def evaluate(
    patronus: Patronus,
    train: Dataset,
    test: Dataset,
    *,
    num_samples: int,
    dataset_name: str = "unnamed",
    steps: Sequence[int] = SAMPLING_STEPS,
    seed: int = 0,
    sample_s: SampleS | None = None,
    prior_sha256: str | None = None,
    inception_weights: Path | None = None,
    lpips_weights: Path | None = None,
) -> dict[str, Any]:
    """Figures of a model on the test split, as JSON values without NaN or null.

    `num_samples` images are drawn with each of `steps` by each sampler and compared with the whole test
    split, and so are as many real training images, which shows how near equally many images can come.
    "learned_s" is the s of test images (as in the published rows), "resampled_s" is drawn from the training
    split's statistics, "prior_s" by `sample_s` where it is given, of a prior with weights `prior_sha256`.
    The distance is named FID with `inception_weights` (see `load_inception`), FD-classifier on our own
    classifier of the data set's classes or attributes. What could not be measured is under "not_measured"
    with its reason.

    The denoiser costs 2 x sum(steps) + 20 calls a sample (20 more with `sample_s`) and 42,000 calls for
    everything else. Raises EvaluationError.
    """
    _check(num_samples, steps, train, test)
    device = str(patronus.activation_mean.device)
    # Weights first: a wrong path is reported before an hour of sampling.
    inception = None if inception_weights is None else load_inception(inception_weights, device=device)
    lpips = None if lpips_weights is None else load_lpips(lpips_weights, device=device)
    steps = sorted(set(steps))
    measured: dict[str, Any] = {
        "weights_sha256": weights_digest(patronus),
        "dataset": dataset_name,
        "num_samples": num_samples,
        "steps": steps,
        "seed": seed,
        "device": device,
        "torch": torch.__version__,
    }
    if prior_sha256 is not None:
        measured["prior_sha256"] = prior_sha256
    if inception_weights is not None:
        measured["inception_weights_sha256"] = file_digest(inception_weights)
    if lpips_weights is not None:
        measured["lpips_weights_sha256"] = file_digest(lpips_weights)

    not_measured: dict[str, str] = {}
    layout = torch.channels_last if device == "cpu" else torch.contiguous_format  # a fifth faster there
    patronus = copy.deepcopy(patronus).eval()
    patronus.to(memory_format=layout)  # type: ignore[call-overload]
    train_activations, train_cells = encode_all(patronus, train.pixels)
    test_activations, _ = encode_all(patronus, test.pixels)
    # One random order of the test split: every measurement takes its first images.
    order = np.random.default_rng(seed).permutation(len(test))
    pixels, activations = test.pixels[order], test_activations[order]

    sources = {LEARNED_S: activations[:num_samples]}
    statistics = ActivationStatistics.measure(train_activations)
    sources[RESAMPLED_S] = statistics.resample(np.random.default_rng(seed), num_samples)
    if sample_s is None:
        not_measured["samples from prior_s"] = "no latent prior was given"
    else:
        sources[PRIOR_S] = _checked(sample_s(np.random.default_rng(seed), num_samples), sources[LEARNED_S])
    with tqdm(desc="denoiser", unit="image-call", leave=False) as progress:
        sampling = ImageSampling(patronus, progress, seed)
        num_timesteps = sampling.schedule.num_timesteps
        samples = {
            drawing: sampling.draw(drawing, sources[drawing.source])
            for drawing in drawings(steps, num_timesteps, list(sources))
        }
        reconstruction = _reconstruction(sampling, pixels, activations, samples, lpips)
    for count in steps:
        if count > num_timesteps:
            not_measured[f"samples with {count} steps"] = f"the schedule has {num_timesteps} timesteps"
    if lpips is None:
        not_measured["reconstruction.lpips"] = "no LPIPS weights were given"

    distances: dict[str, float] = {}
    classifier_figures: dict[str, float] = {}
    train_order = np.sort(np.random.default_rng(seed).permutation(len(train))[:num_samples])
    real = train.pixels[train_order]
    if inception is None:
        not_measured["samples.fid"] = "no Inception weights were given"
    else:
        distances |= _distances("fid", inception.features, test.pixels, real, samples)
    if can_classify(train):
        classifier = train_classifier(train, device=device)
        classifier_figures["classifier_accuracy_test"] = classifier.accuracy(test)
        distances |= _distances("fd_classifier", classifier.features, test.pixels, real, samples)
    else:
        not_measured["samples.fd_classifier"] = NO_LABELS
    probe = _probe(train, test, train_activations, test_activations, not_measured)
    return {
        "measured": measured,
        "num_train_images": len(train),
        "num_test_images": len(test),
        "conditioning": _conditioning(patronus, pixels, activations),
        "probe": probe,
        **_tad(test, test_activations, not_measured),
        "reconstruction": reconstruction,
        "prototypes": prototype_figures(patronus.config, train_activations, train_cells, test_activations),
        "samples": {"num_images": num_samples, **classifier_figures, **distances},
        "not_measured": not_measured,
    }


def _check(num_samples: int, steps: Sequence[int], train: Dataset, test: Dataset) -> None:
    largest = min(len(train), len(test))
    if not 2 <= num_samples <= largest:
        raise EvaluationError(f"num_samples must be 2 to {largest}, not {num_samples}")
    if not steps or min(steps) < 1:
        raise EvaluationError(f"steps must be one or more numbers of at least 1, not {list(steps)}")


def _checked(drawn: Float32, like: Float32) -> Float32:
    if drawn.shape != like.shape or not np.isfinite(drawn).all():
        raise EvaluationError(
            f"sample_s must give finite activations of shape {like.shape}, it gave shape {drawn.shape}"
            + ("" if np.isfinite(drawn).all() else " with values that are not finite")
        )
    return drawn.astype(np.float32, copy=False)


def _distances(
    name: str,
    features: Callable[[Pixels], Float32],
    test: Pixels,
    train: Pixels,
    samples: Mapping[Drawing, Pixels],
) -> dict[str, float]:
    """Fréchet distances to the test images: of real training images, and of every drawing."""
    expected = features(test)
    result = {f"{name}_real_train_images": feature_distance(features(train), expected)}
    for drawing, drawn in samples.items():
        result[f"{name}_{drawing}"] = feature_distance(features(drawn), expected)
    return result


def _probe(
    train: Dataset, test: Dataset, train_s: Float32, test_s: Float32, not_measured: dict[str, str]
) -> dict[str, Any]:
    """Accuracy for classes and mean AUROC for attributes; both, one or none, as the data set has them."""
    result: dict[str, Any] = {}
    if train.class_names:
        _, counts = np.unique(train.labels, return_counts=True)
        if len(counts) < 2:
            not_measured["probe.accuracy"] = "all training images are of one class"
        else:
            folds = FOLDS if counts.min() >= FOLDS else 0
            accuracy = linear_probe(train_s, train.labels, test_s, test.labels, folds=folds)
            result["accuracy_test"] = accuracy.test
            if folds:
                result["accuracy_5_fold"] = accuracy.cross_validated
            else:
                not_measured["probe.accuracy_5_fold"] = f"a class has fewer than {FOLDS} training images"
    if train.attribute_names:
        auroc = attribute_probe(train_s, train.attributes, test_s, test.attributes)
        if auroc.num_attributes:
            result["auroc_test"] = auroc.test
            result["auroc_5_fold"] = auroc.cross_validated
            result["auroc_num_attributes"] = auroc.num_attributes
        else:
            not_measured["probe.auroc"] = (
                f"no attribute has both values known of {FOLDS} training images each and in the test split"
            )
    if not train.class_names and not train.attribute_names:
        not_measured["probe"] = NO_LABELS
    return result


def _tad(test: Dataset, test_s: Float32, not_measured: dict[str, str]) -> dict[str, Any]:
    """TAD on the test split: of the attributes where there are some, else of the classes one-vs-rest."""
    if test.attribute_names:
        of, attributes, names = "attributes", test.attributes, test.attribute_names
    elif test.class_names:
        of, names = "classes", test.class_names
        attributes = one_vs_rest(test.labels, len(names))
    else:
        not_measured["tad"] = NO_LABELS
        return {}
    found = total_auroc_difference(test_s, attributes, names)
    captured = {
        attribute.name: {
            "prototype": attribute.prototype,
            "auroc": attribute.auroc,
            "second_auroc": attribute.second_auroc,
        }
        for attribute in found.captured
    }
    return {
        "tad": {
            "of": of,
            "tad": found.tad,
            "num_captured": len(found.captured),
            "num_attributes": found.num_attributes,
            "num_prototypes": test_s.shape[1],
            "captured": captured,
        }
    }


def _reconstruction(
    sampling: ImageSampling,
    pixels: Pixels,
    activations: Float32,
    samples: Mapping[Drawing, Pixels],
    lpips: Lpips | None,
) -> dict[str, Any]:
    """Likeness of images drawn from their own s: by way of their inverted x_T, and of a random one."""
    count = min(NUM_RECONSTRUCTIONS, len(pixels))
    found = {
        f"ddim_inversion_{steps}_steps": sampling.reconstruct(steps, pixels[:count], activations[:count])
        for steps in INVERSION_STEPS
        if steps <= sampling.schedule.num_timesteps
    }
    from_random = samples.get(Drawing("ddim", INVERSION_STEPS[-1], LEARNED_S))
    if from_random is not None:
        found[f"random_noise_{INVERSION_STEPS[-1]}_steps"] = from_random
    result: dict[str, Any] = {"num_images": count}
    for name, drawn in found.items():
        expected = pixels[: len(drawn)]
        result[f"{name}_mse"] = mean_squared_error(expected, drawn)
        result[f"{name}_psnr_db"] = mean_psnr_db(expected, drawn)
        result[f"{name}_ssim"] = mean_ssim(expected, drawn)
        if lpips is not None:
            result[f"{name}_lpips"] = lpips.mean(expected, drawn)
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
