"""Small models of cartoon faces, for what needs several of them: one recipe, and runs that are kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from model.config import EncoderConfig, ImageConfig, ModelConfig, config_to_dict
from model.patronus import Patronus
from training.config import TrainConfig
from training.data import Dataset
from training.devices import make_accelerator
from training.presets import PRESETS
from training.trainer import CHECKPOINT, Trainer, load_averaged_model, read_checkpoint

SIZE = 32
RUNS = Path("runs") / "ground-truth"

PRESET = PRESETS["small-cartoon-faces"]
SHORT = 5000
"""Steps. Of a shorter run an average over a thousand steps would be that of its beginning."""


def small_model(size: int = SIZE) -> ModelConfig:
    """That of `small-cartoon-faces`; below 64 pixels with patches that are as large a part of the picture:
    of 9 pixels, by one layer of stride 2 less."""
    encoder = PRESET.model.encoder
    if size < 64:
        encoder = EncoderConfig(
            num_prototypes=encoder.num_prototypes,
            kernel_sizes=(3, 3, 2),
            channels=(32, 64, 128),
            strides=(2, 1, 1),
            paddings=(1, 0, 0),
        )
    return replace(PRESET.model, image=ImageConfig(3, size, size), encoder=encoder)


def small_config(dataset: str, *, num_images: int, size: int = SIZE, seed: int = 0) -> TrainConfig:
    """The recipe of `small-cartoon-faces` for `num_images` pictures of `size` pixels."""
    return replace(
        PRESET,
        model=small_model(size),
        dataset=dataset,
        num_images=num_images,
        seed=seed,
        ema_decay=0.99 if num_images // PRESET.batch_size < SHORT else PRESET.ema_decay,
        precision="bf16",
        sample_every=10**9,
    )


def fine_tuning(config: TrainConfig) -> TrainConfig:
    """The same, gently, for what a run before it has learned: a third of the learning rate."""
    optimizer = config.optimizer
    gentle = replace(optimizer, learning_rate=optimizer.learning_rate / 3, warmup_steps=50)
    return replace(config, optimizer=gentle)


def model_of(run: Path) -> ModelConfig:
    """What a run trained. Raises CheckpointError."""
    return load_averaged_model(run)[1].model


def run_directory(runs: Path, purpose: str, config: TrainConfig, init_from: Path | None = None) -> Path:
    """Where in `runs` a run is kept: one of another configuration or beginning is another one.

    Raises CheckpointError where there is no run in `init_from`.
    """
    beginning = None
    if init_from is not None:
        state = read_checkpoint(init_from)
        beginning = [state["config"], state["step"]]
    text = json.dumps([config_to_dict(config), beginning], sort_keys=True)
    return runs / f"{purpose}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def train_in(
    directory: Path,
    config: TrainConfig,
    dataset: Dataset,
    *,
    init_from: Path | None = None,
    device: str = "auto",
) -> Patronus:
    """The averaged model of the run in `directory`, which is trained as far as it is not yet.

    A new one begins at the averaged weights of the run `init_from`. Raises CheckpointError where `directory`
    holds a run of another configuration.
    """
    accelerator = make_accelerator(device)
    trainer = Trainer(config, dataset, directory, accelerator)
    if (directory / CHECKPOINT).exists():
        trainer.load()
    elif init_from is not None:
        trainer.start_from(init_from)
    if trainer.step < config.num_steps:
        trainer.run()
    accelerator.free_memory()  # it keeps every model that it prepared
    return load_averaged_model(directory)[0]
