"""Small models and data that several tests share."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from benchmarks.gpu.networks import TINY
from model.config import ImageConfig, ModelConfig, PriorConfig
from model.patronus import Patronus
from model.prior import Prior
from model.transforms import to_x_0
from training.config import TrainConfig
from training.data import FASHION_MNIST_CLASSES, Dataset
from training.evaluate import EVALUATION, weights_digest
from training.export import export_bundle
from training.initialisation import initialise_prototypes
from training.prior import save_prior

KeepEvaluation = Callable[..., None]
WriteIdx = Callable[[Path, npt.NDArray[np.uint8]], None]

SHARED = Path(__file__).parents[1].parent / "shared"
"""Official data and reference numbers, beside the repository; tests that need them skip without."""


@pytest.fixture(scope="session", autouse=True)
def _environment_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Neither this user's settings nor the names that this user gave to prototypes change what tests see."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PATRONUS_")]:
            patch.delenv(name)
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state-home")))
        yield


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    """The small preset's kind of network on 8x8 images, with T = 40: milliseconds per step."""
    denoiser = replace(TINY.denoiser, conditioning="scale_shift", standardize=True)
    return replace(TINY, denoiser=denoiser, prediction="v")


@pytest.fixture(scope="session")
def tiny_dataset() -> Dataset:
    """64 noisy 8x8 images of ten classes; each class lights up a place of its own."""
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 10
    pixels = rng.integers(0, 100, (64, 1, 8, 8), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[0, label // 2 : label // 2 + 3, 3 * (label % 2) : 3 * (label % 2) + 3] = 255
    return Dataset(pixels, labels.astype(np.int64), FASHION_MNIST_CLASSES)


@pytest.fixture(scope="session")
def tiny_patronus(tiny_config: ModelConfig) -> Patronus:
    """An untrained model with random weights."""
    torch.manual_seed(0)
    return Patronus(tiny_config).eval()


@pytest.fixture(scope="session")
def keep_evaluation() -> KeepEvaluation:
    """Writes what export asks of an evaluation of a model, without an hour of sampling."""

    def keep(run: Path, patronus: Patronus, prior: Prior | None = None) -> None:
        measured = {"weights_sha256": weights_digest(patronus)}
        if prior is not None:
            measured["prior_sha256"] = weights_digest(prior)
        metrics = {"measured": measured, "probe": {"accuracy_test": 0.5}}
        (run / EVALUATION).write_text(json.dumps(metrics))

    return keep


@pytest.fixture(scope="session")
def tiny_bundle(
    tiny_patronus: Patronus,
    tiny_dataset: Dataset,
    keep_evaluation: KeepEvaluation,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A bundle of `tiny_patronus`; copy it before changing anything."""
    run = tmp_path_factory.mktemp("run")
    keep_evaluation(run, tiny_patronus)
    out = tmp_path_factory.mktemp("bundles") / "tiny"
    config = TrainConfig(model=tiny_patronus.config)
    export_bundle(
        tiny_patronus,
        config,
        tiny_dataset,
        tiny_dataset,
        run=run,
        out=out,
        name="tiny model",
        emergence_samples=8,
    )
    return out


@pytest.fixture(scope="session")
def tiny_prior_bundle(
    tiny_patronus: Patronus,
    tiny_dataset: Dataset,
    keep_evaluation: KeepEvaluation,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The same model with a latent prior of random weights; copy it before changing anything."""
    run = tmp_path_factory.mktemp("run")
    torch.manual_seed(1)
    config = PriorConfig(
        num_prototypes=tiny_patronus.config.num_prototypes, width=16, num_layers=1, sampling_steps=8
    )
    prior = Prior(config)
    torch.nn.init.normal_(prior.last.weight, std=0.1)
    save_prior(prior, run, tiny_patronus.encoder)
    keep_evaluation(run, tiny_patronus, prior)
    out = tmp_path_factory.mktemp("bundles") / "tiny-with-prior"
    train_config = TrainConfig(model=tiny_patronus.config)
    export_bundle(
        tiny_patronus,
        train_config,
        tiny_dataset,
        tiny_dataset,
        run=run,
        out=out,
        name="tiny with prior",
        emergence_samples=8,
    )
    return out


@pytest.fixture(scope="session")
def three_scales_config(tiny_config: ModelConfig) -> ModelConfig:
    """Two local, two wide (19 pixels) and two global prototypes of 24x24 images."""
    encoder = replace(tiny_config.encoder, num_prototypes=6, num_wide_prototypes=2, num_global_prototypes=2)
    return replace(tiny_config, image=ImageConfig(1, 24, 24), encoder=encoder)


@pytest.fixture(scope="session")
def three_scales_dataset(tiny_dataset: Dataset) -> Dataset:
    """The same images, each pixel three wide and high."""
    pixels = tiny_dataset.pixels.repeat(3, axis=2).repeat(3, axis=3)
    return Dataset(pixels, tiny_dataset.labels, tiny_dataset.class_names)


@pytest.fixture(scope="session")
def three_scales_patronus(three_scales_config: ModelConfig, three_scales_dataset: Dataset) -> Patronus:
    """An untrained model with random weights, whose prototypes lie at patches of the data."""
    torch.manual_seed(0)
    patronus = Patronus(three_scales_config).eval()
    x_0 = torch.from_numpy(to_x_0(three_scales_dataset.pixels))
    initialise_prototypes(patronus, x_0, "patches", seed=0)
    return patronus


@pytest.fixture(scope="session")
def three_scales_bundle(
    three_scales_patronus: Patronus,
    three_scales_dataset: Dataset,
    keep_evaluation: KeepEvaluation,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A bundle of it with a latent prior of random weights; copy it before changing anything."""
    run = tmp_path_factory.mktemp("run")
    torch.manual_seed(1)
    config = PriorConfig(num_prototypes=6, width=16, num_layers=1, sampling_steps=8)
    prior = Prior(config)
    torch.nn.init.normal_(prior.last.weight, std=0.1)
    save_prior(prior, run, three_scales_patronus.encoder)
    keep_evaluation(run, three_scales_patronus, prior)
    out = tmp_path_factory.mktemp("bundles") / "three-scales"
    export_bundle(
        three_scales_patronus,
        TrainConfig(model=three_scales_patronus.config),
        three_scales_dataset,
        three_scales_dataset,
        run=run,
        out=out,
        name="three scales",
        emergence_samples=8,
    )
    return out


@pytest.fixture(scope="session")
def write_idx() -> WriteIdx:
    """Writes an array of unsigned bytes as a gzipped idx file."""

    def write(path: Path, array: npt.NDArray[np.uint8]) -> None:
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
        path.write_bytes(gzip.compress(header + array.tobytes()))

    return write


@pytest.fixture
def shared() -> Path:
    """The directory with the official data; skips the test where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is missing: it holds the official data and reference numbers")
    return SHARED
