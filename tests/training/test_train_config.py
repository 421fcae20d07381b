from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from model.config import ConfigError
from training.config import LossConfig, OptimizerConfig, TrainConfig, with_overrides


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    config = TrainConfig(
        num_images=1000 * 64, batch_size=64, optimizer=OptimizerConfig(1e-3, warmup_steps=200)
    )
    assert config.num_steps == 1000
    assert config.learning_rate_at(0) == pytest.approx(1e-3 / 200)
    assert config.learning_rate_at(199) == pytest.approx(1e-3)
    assert config.learning_rate_at(600) == pytest.approx(0.5e-3)
    assert 0.0 < config.learning_rate_at(999) < 2e-6


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_the_shortest_runs_have_a_learning_rate(num_steps: int) -> None:
    config = TrainConfig(num_images=num_steps * 8, batch_size=8)
    assert all(0.0 < config.learning_rate_at(step) <= 1e-3 for step in range(num_steps))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TrainConfig(batch_size=0), "batch_size must be >= 2, not 0"),
        (lambda: TrainConfig(num_images=10), r"num_images \(10\) must be at least batch_size \(64\)"),
        (lambda: OptimizerConfig(learning_rate=0.0), "learning_rate must be > 0"),
        (lambda: TrainConfig(ema_decay=1.0), r"ema_decay must be in \[0, 1\)"),
        (lambda: TrainConfig(statistics_momentum=0.0), r"statistics_momentum must be in \(0, 1\]"),
        (lambda: OptimizerConfig(warmup_steps=-1), "warmup_steps"),
        (lambda: OptimizerConfig(max_grad_norm=-1.0), "max_grad_norm"),
        (lambda: OptimizerConfig(weight_decay=-1.0), "weight_decay"),
        (lambda: TrainConfig(precision="fp16"), "precision"),  # type: ignore[arg-type]
        (lambda: OptimizerConfig(learning_rate=float("nan")), "learning_rate"),
        (lambda: OptimizerConfig(decay="cosine"), "decay must be one of"),  # type: ignore[arg-type]
        (lambda: LossConfig(min_snr_gamma=-1.0), "min_snr_gamma must be >= 0"),
        (lambda: LossConfig(distinctness_margin=0.0), "distinctness_margin must be > 0"),
        (lambda: TrainConfig(prototype_init="zeros"), "prototype_init"),  # type: ignore[arg-type]
    ],
)
def test_impossible_values_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_a_constant_learning_rate_stays() -> None:
    config = TrainConfig(num_images=640, optimizer=OptimizerConfig(2e-4, decay="constant", warmup_steps=0))
    assert {config.learning_rate_at(step) for step in range(10)} == {2e-4}


def test_any_field_is_reached_by_its_dotted_name() -> None:
    config = with_overrides(
        TrainConfig(),
        {
            "seed": 7,
            "model.encoder.num_prototypes": "12",
            "model.encoder.channels": "[16, 32, 32, 48]",
            "model.prediction": "eps",
            "loss.distinctness": "euclidean",
            "optimizer.learning_rate": "1e-4",
            "horizontal_flip": "true",
        },
    )
    assert config.seed == 7
    assert config.model.encoder.num_prototypes == 12
    assert config.model.encoder.feature_width == 48
    assert config.model.prediction == "eps"
    assert config.loss.distinctness == "euclidean"
    assert config.optimizer.learning_rate == 1e-4
    assert config.horizontal_flip


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learning_rate", "1", "there is no field 'learning_rate'"),
        ("model", "{}", "there is no field 'model'"),
        ("model.encoder.wings", "2", "there is no field 'model.encoder.wings'"),
        ("seed.more", "2", "there is no field 'seed.more'"),
        ("seed", "half", "seed must be int, not 'half'"),
        ("loss.distinctness", "taxicab", "distinctness must be one of"),
        ("model.encoder.channels", "[1, 2]", "encoder kernel_sizes has 4 entries for 2 layers"),
    ],
)
def test_a_wrong_override_is_named(name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        with_overrides(TrainConfig(), {name: value})
