"""Training runs by name: the paper's recipe for its five data sets, and ours."""

from __future__ import annotations

import dataclasses

from model.config import (
    DenoiserConfig,
    EncoderConfig,
    ImageConfig,
    ModelConfig,
    paper_config,
    small_config,
)
from training.config import LossConfig, OptimizerConfig, TrainConfig

NUM_TRAINING_IMAGES = {
    "fashion-mnist": 60_000,
    "cifar10": 50_000,
    "celeba": 162_770,
    "ffhq": 60_000,
    "chexpert": 191_027,  # frontal views
}


def _paper(dataset: str, model: ModelConfig, *, batch_size: int, epochs: int = 300) -> TrainConfig:
    """The published recipe (Weng et al. 2026, appendix): AdamW at a constant 1e-5, no average, λ = 0."""
    return TrainConfig(
        model=model,
        dataset=dataset,
        num_images=epochs * NUM_TRAINING_IMAGES[dataset],
        batch_size=batch_size,
        optimizer=OptimizerConfig(
            learning_rate=1e-5,
            decay="constant",
            beta_2=0.999,
            weight_decay=0.01,
            warmup_steps=0,
            max_grad_norm=0.0,
        ),
        loss=LossConfig(nearest_patch_weight=0.0, decorrelation_weight=0.0),
        encoder_init="normal",
        prototype_init="uniform",
        ema_decay=0.0,
        precision="fp32",
    )


def _paper_chexpert() -> ModelConfig:
    return ModelConfig(
        image=ImageConfig(1, 224, 224),
        encoder=EncoderConfig(
            num_prototypes=100,
            kernel_sizes=(5, 5, 5, 5, 5),
            channels=(32, 64, 64, 128, 128),
            strides=(2, 2, 1, 1, 1),
            paddings=(1, 1, 0, 0, 0),
            distance="sum",
        ),
    )


def _small_64() -> ModelConfig:
    """The small network one level deeper, for 64x64 colour images."""
    return ModelConfig(
        image=ImageConfig(3, 64, 64),
        encoder=EncoderConfig(num_prototypes=100),
        denoiser=DenoiserConfig(
            base_channels=32,
            channel_multipliers=(1, 2, 2, 4),
            attention_levels=(False, False, False, False),
            conditioning="scale_shift",
            patch_size=2,
            standardize=True,
            zero_init=True,
        ),
        prediction="v",
    )


def _small_cartoon_faces() -> ModelConfig:
    """A network for 64x64 cartoon faces whose bundle, pictures and prior included, stays below 16 MiB.

    Patches are 19 pixels wide, about an eye with its brow, a mouth, or half a pair of glasses.
    """
    small = _small_64()
    return dataclasses.replace(
        small,
        encoder=EncoderConfig(
            num_prototypes=48, kernel_sizes=(3, 3, 3, 2), strides=(2, 2, 1, 1), paddings=(1, 1, 0, 0)
        ),
        denoiser=dataclasses.replace(small.denoiser, base_channels=24, channel_multipliers=(1, 2, 2, 2)),
    )


def _with_whole_image(model: ModelConfig, *, num_wide: int, num_global: int) -> ModelConfig:
    """The same network and number of prototypes, some of which look at wide patches or the whole image.

    That makes a bundle larger: of cartoon faces by 3 to 4 MiB, as it keeps the further weights twice, and
    whole images as patches.
    """
    encoder = dataclasses.replace(
        model.encoder, num_wide_prototypes=num_wide, num_global_prototypes=num_global
    )
    return dataclasses.replace(model, encoder=encoder)


def _small_color(dataset: str, model: ModelConfig) -> TrainConfig:
    return TrainConfig(
        model=model,
        dataset=dataset,
        horizontal_flip=True,
        loss=LossConfig(decorrelation_weight=0.5),
    )


_CARTOON_FACES_LOSS = LossConfig(decorrelation_weight=1.5, variance_weight=0.3)
"""Without the variance term activations hardly differ between faces; more of it makes them all alike."""

PRESETS: dict[str, TrainConfig] = {
    "small": TrainConfig(loss=LossConfig(decorrelation_weight=0.5)),
    "small-cifar10": _small_color("cifar10", small_config(channels=3, num_prototypes=100)),
    "small-celeba": _small_color("celeba", _small_64()),
    "small-ffhq": _small_color("ffhq", _small_64()),
    "small-cartoon-faces": TrainConfig(
        model=_small_cartoon_faces(),
        dataset="cartoon-faces",
        loss=_CARTOON_FACES_LOSS,
    ),
    "small-cartoon-faces-global": TrainConfig(
        model=_with_whole_image(_small_cartoon_faces(), num_wide=10, num_global=8),
        dataset="cartoon-faces",
        loss=_CARTOON_FACES_LOSS,
    ),
    "paper-fashion-mnist": _paper(
        "fashion-mnist", paper_config(channels=1, size=32, num_prototypes=30), batch_size=128, epochs=100
    ),
    "paper-cifar10": _paper("cifar10", paper_config(size=32), batch_size=128),
    "paper-celeba": _paper("celeba", paper_config(size=64), batch_size=64),
    "paper-ffhq": _paper("ffhq", paper_config(size=64), batch_size=64),
    "paper-chexpert": _paper("chexpert", _paper_chexpert(), batch_size=64),
}
"""The small ones are ours: a network that a CPU can serve, and what the weaknesses of the published recipe
call for (mean distance, standardised s, prototypes started at patches, decorrelation, an average, v)."""
