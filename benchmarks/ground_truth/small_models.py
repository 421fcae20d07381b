"""Models of 32x32 cartoon faces that are trained in minutes, for what needs several of them."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator

from model.config import EncoderConfig, ImageConfig
from model.patronus import Patronus
from training.config import TrainConfig
from training.data import Dataset, load_dataset
from training.presets import PRESETS
from training.trainer import Trainer, load_averaged_model

SIZE = 32


def small_config(dataset: str, *, num_images: int, seed: int = 0) -> TrainConfig:
    """The recipe of `small-cartoon-faces` for 32x32 pixels: patches of 11, one level less."""
    preset = PRESETS["small-cartoon-faces"]
    model = replace(
        preset.model,
        image=ImageConfig(3, SIZE, SIZE),
        encoder=EncoderConfig(
            num_prototypes=preset.model.num_prototypes,
            kernel_sizes=(3, 3, 3),
            channels=(32, 64, 128),
            strides=(2, 1, 1),
            paddings=(1, 0, 0),
        ),
        denoiser=replace(preset.model.denoiser, channel_multipliers=(1, 2, 2), attention_levels=(False,) * 3),
    )
    return replace(
        preset,
        model=model,
        dataset=dataset,
        num_images=num_images,
        seed=seed,
        ema_decay=0.99,  # an average over a thousand steps would be that of the beginning
        precision="bf16",
        sample_every=10**9,
    )


def train_small(config: TrainConfig) -> tuple[Patronus, Dataset]:
    """The averaged model of a run that leaves nothing behind, and its test split."""
    image = config.model.image
    with tempfile.TemporaryDirectory() as directory:
        train = load_dataset(config.dataset, None, "train", image)
        Trainer(config, train, Path(directory), Accelerator(cpu=True)).run()
        patronus, _ = load_averaged_model(Path(directory))
    return patronus, load_dataset(config.dataset, None, "test", image)
