from __future__ import annotations

from collections.abc import Callable

import pytest

from model.config import ConfigError
from training.config import TrainConfig


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    config = TrainConfig(num_images=1000 * 64, batch_size=64, learning_rate=1e-3, warmup_steps=200)
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
        (lambda: TrainConfig(batch_size=0), "batch_size must be >= 1, not 0"),
        (lambda: TrainConfig(num_images=10), r"num_images \(10\) must be at least batch_size \(64\)"),
        (lambda: TrainConfig(learning_rate=0.0), "learning_rate must be > 0"),
        (lambda: TrainConfig(ema_decay=1.0), r"ema_decay must be in \[0, 1\)"),
        (lambda: TrainConfig(statistics_momentum=0.0), r"statistics_momentum must be in \(0, 1\]"),
        (lambda: TrainConfig(warmup_steps=-1), "warmup_steps"),
        (lambda: TrainConfig(max_grad_norm=0.0), "max_grad_norm"),
        (lambda: TrainConfig(weight_decay=-1.0), "weight_decay"),
        (lambda: TrainConfig(precision="fp16"), "precision"),  # type: ignore[arg-type]
        (lambda: TrainConfig(learning_rate=float("nan")), "learning_rate"),
    ],
)
def test_impossible_values_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()
