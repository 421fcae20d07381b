"""One resolved, frozen configuration for a training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from model.config import ConfigError, ModelConfig, small_config

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a run besides the data files and the machine.

    `num_images` counts images seen; warm-up and decay are in optimiser steps and follow from it.
    `nearest_patch_weight` holds every prototype near a real patch; `decorrelation_weight` keeps
    two prototypes from meaning the same. Precision "auto" is bf16 on CUDA and fp32 on a CPU.
    """

    model: ModelConfig = field(default_factory=small_config)
    dataset: str = "fashion-mnist"
    seed: int = 0
    num_images: int = 1_000_000
    batch_size: int = 64
    learning_rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.99
    weight_decay: float = 0.0
    warmup_steps: int = 200
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    horizontal_flip: bool = False
    nearest_patch_weight: float = 0.05
    decorrelation_weight: float = 0.05
    statistics_momentum: float = 0.01
    precision: Precision = "auto"
    log_every: int = 100
    checkpoint_every: int = 1000
    sample_every: int = 2000

    def __post_init__(self) -> None:
        for name in ("num_images", "batch_size", "log_every", "checkpoint_every", "sample_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, not {getattr(self, name)}")
        if self.num_images < self.batch_size:
            raise ConfigError(
                f"num_images ({self.num_images}) must be at least batch_size ({self.batch_size})"
            )
        if not self.learning_rate > 0.0:
            raise ConfigError(f"learning_rate must be > 0, not {self.learning_rate}")
        for name in ("beta_1", "beta_2", "ema_decay"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        for name in ("warmup_steps", "weight_decay", "nearest_patch_weight", "decorrelation_weight"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be >= 0, not {getattr(self, name)}")
        if not self.max_grad_norm > 0.0:
            raise ConfigError(f"max_grad_norm must be > 0, not {self.max_grad_norm}")
        if self.precision not in get_args(Precision):
            raise ConfigError(f"precision must be one of {get_args(Precision)}, not {self.precision!r}")
        if not 0.0 < self.statistics_momentum <= 1.0:
            raise ConfigError(f"statistics_momentum must be in (0, 1], not {self.statistics_momentum}")

    @property
    def num_steps(self) -> int:
        return self.num_images // self.batch_size

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up from 0, then linear decay to 0 at the last step."""
        warmup = min(self.warmup_steps, self.num_steps // 2)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * (self.num_steps - step) / (self.num_steps - warmup)
