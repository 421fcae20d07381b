"""One resolved, frozen configuration for a training run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from model.config import ConfigError, ModelConfig, config_from_dict, config_to_dict, small_config

Precision = Literal["auto", "fp32", "bf16"]
Decay = Literal["linear", "constant"]
Distinctness = Literal["cosine", "euclidean"]
EncoderInit = Literal["kaiming", "normal"]
PrototypeInit = Literal["patches", "uniform", "normal"]


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter 2019): linear warm-up, then `decay`; `max_grad_norm` 0 does not clip."""

    learning_rate: float = 1e-3
    decay: Decay = "linear"
    beta_1: float = 0.9
    beta_2: float = 0.99
    weight_decay: float = 0.0
    warmup_steps: int = 200
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        _require_above_0(self, "learning_rate")
        _require_not_negative(self, "warmup_steps", "weight_decay", "max_grad_norm")
        _require_choice(self, decay=Decay)
        for name in ("beta_1", "beta_2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name} must be in [0, 1), not {getattr(self, name)}")


@dataclass(frozen=True)
class LossConfig:
    """What is minimised beside the denoising error; a weight of 0 switches a term off.

    `min_snr_gamma` weights the denoising error by min(SNR, gamma) (Hang et al. 2023); 0 is the plain mean.
    `nearest_patch_weight` holds every prototype near a real patch; `decorrelation_weight` keeps
    the activations of two prototypes from meaning the same. `variance_weight` has every activation differ
    from image to image, by a standard deviation of at least `variance_target`. `distinctness_weight` is the
    paper's λ (published: 0) on prototype vectors nearer than `distinctness_margin` to one another.
    `decoupled_pairs` are ordered pairs (j, k) of prototypes: driving s_j is to leave s_k as it is, which
    `decoupling_weight` weighs (`training.decoupling`); without pairs the term is off and costs nothing.
    `reencoding_weight` has the encoder find in x̂₀ what the denoiser was given (`training.reencoding`).
    """

    min_snr_gamma: float = 0.0
    nearest_patch_weight: float = 0.05
    decorrelation_weight: float = 0.05
    variance_weight: float = 0.0
    variance_target: float = 1.0
    distinctness: Distinctness = "cosine"
    distinctness_weight: float = 0.0
    distinctness_margin: float = 0.5
    decoupled_pairs: tuple[tuple[int, ...], ...] = ()
    decoupling_weight: float = 0.01
    reencoding_weight: float = 0.0

    def __post_init__(self) -> None:
        _require_choice(self, distinctness=Distinctness)
        _require_not_negative(
            self,
            "min_snr_gamma",
            "nearest_patch_weight",
            "decorrelation_weight",
            "variance_weight",
            "distinctness_weight",
            "decoupling_weight",
            "reencoding_weight",
        )
        _require_above_0(self, "distinctness_margin", "variance_target")
        for pair in self.decoupled_pairs:
            if len(pair) != 2 or pair[0] == pair[1]:
                raise ConfigError(
                    f"decoupled_pairs must be of two different prototypes each, not {list(pair)}"
                )
        if len(set(self.decoupled_pairs)) < len(self.decoupled_pairs):
            raise ConfigError(f"decoupled_pairs has a pair twice: {list(map(list, self.decoupled_pairs))}")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a run besides the data files and the machine.

    `num_images` counts images seen and `batch_size` the images of a step, over all processes together;
    warm-up and decay are in optimiser steps. `encoder_init` "normal" is the published N(0, 0.1²) for
    convolution weights. `prototype_init` "patches" starts at real patch features (k-means++), "uniform" at
    [0, 1), "normal" at N(0, 1). `ema_decay` 0 does not average. Precision "auto" is bf16 on CUDA and fp32
    on a CPU. `freeze_encoder` trains the denoiser alone, on an encoder that another run has trained:
    prototypes, their statistics and their names stay as they are.
    """

    model: ModelConfig = field(default_factory=small_config)
    dataset: str = "fashion-mnist"
    seed: int = 0
    num_images: int = 1_000_000
    batch_size: int = 64
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    encoder_init: EncoderInit = "kaiming"
    prototype_init: PrototypeInit = "patches"
    ema_decay: float = 0.999
    horizontal_flip: bool = False
    freeze_encoder: bool = False
    statistics_momentum: float = 0.01
    precision: Precision = "auto"
    log_every: int = 100
    checkpoint_every: int = 1000
    sample_every: int = 2000

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must be 0 to {2**32 - 1}, not {self.seed}")
        if self.batch_size < 2:
            raise ConfigError(
                f"batch_size must be >= 2, not {self.batch_size}: statistics of s are taken over a batch"
            )
        for name in ("num_images", "log_every", "checkpoint_every", "sample_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, not {getattr(self, name)}")
        if self.num_images < self.batch_size:
            raise ConfigError(
                f"num_images ({self.num_images}) must be at least batch_size ({self.batch_size})"
            )
        if not 0.0 <= self.ema_decay < 1.0:
            raise ConfigError(f"ema_decay must be in [0, 1), not {self.ema_decay}")
        if not 0.0 < self.statistics_momentum <= 1.0:
            raise ConfigError(f"statistics_momentum must be in (0, 1], not {self.statistics_momentum}")
        _require_choice(self, precision=Precision, encoder_init=EncoderInit, prototype_init=PrototypeInit)
        m = self.model.num_prototypes
        for pair in self.loss.decoupled_pairs:
            if not all(0 <= j < m for j in pair):
                raise ConfigError(f"decoupled_pairs must be of prototypes 0 to {m - 1}, not {list(pair)}")

    @property
    def num_steps(self) -> int:
        return self.num_images // self.batch_size

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up from 0, then constant, or linear decay to 0 at the last step."""
        optimizer = self.optimizer
        warmup = min(optimizer.warmup_steps, self.num_steps // 2)
        if step < warmup:
            return optimizer.learning_rate * (step + 1) / warmup
        if optimizer.decay == "constant":
            return optimizer.learning_rate
        return optimizer.learning_rate * (self.num_steps - step) / (self.num_steps - warmup)


def with_overrides(config: TrainConfig, overrides: dict[str, Any]) -> TrainConfig:
    """`config` with fields replaced by their dotted names, such as "model.encoder.num_prototypes".

    A string that is JSON ("0.5", "[32, 64]", "true") counts as what it says. Raises ConfigError for a
    name or a value that no configuration has.
    """
    values = config_to_dict(config, complete=True)
    for name, value in overrides.items():
        *parents, leaf = name.split(".")
        branch: Any = values
        for parent in parents:
            branch = branch.get(parent) if isinstance(branch, dict) else None
        if not isinstance(branch, dict) or leaf not in branch or isinstance(branch[leaf], dict):
            raise ConfigError(f"there is no field {name!r}; --dry-run prints those that there are")
        branch[leaf] = _parsed(value, branch[leaf])
    return config_from_dict(TrainConfig, values)


def _parsed(value: Any, current: Any) -> Any:
    if not isinstance(value, str) or isinstance(current, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value  # refused by its type, with its name, where the configuration is built


def _require_above_0(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ConfigError(f"{name} must be > 0, not {getattr(config, name)}")


def _require_not_negative(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= 0:
            raise ConfigError(f"{name} must be >= 0, not {getattr(config, name)}")


def _require_choice(config: Any, **choices: Any) -> None:
    for name, literal in choices.items():
        value = getattr(config, name)
        if value not in get_args(literal):
            raise ConfigError(f"{name} must be one of {get_args(literal)}, not {value!r}")
