from __future__ import annotations

import pytest
import torch
from torch import nn

from training.ema import ExponentialMovingAverage


def weights(value: float) -> nn.Module:
    module = nn.BatchNorm1d(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)
    return module


def test_the_average_follows_by_its_decay() -> None:
    average = ExponentialMovingAverage(weights(0.0), decay=0.9)
    average.update(weights(1.0), step=10_000)
    average.update(weights(1.0), step=10_001)
    for parameter in average.module.parameters():
        torch.testing.assert_close(parameter, torch.full((2,), 1 - 0.9**2))


def test_early_averages_forget_faster() -> None:
    average = ExponentialMovingAverage(weights(0.0), decay=0.999)
    average.update(weights(1.0), step=1)
    assert next(average.module.parameters())[0].item() == pytest.approx(1 - 2 / 11)


def test_buffers_follow_at_once() -> None:
    module = weights(0.0)
    average = ExponentialMovingAverage(module, decay=0.999)
    module.get_buffer("running_mean").fill_(5.0)
    average.update(module, step=10_000)
    assert average.module.get_buffer("running_mean").tolist() == [5.0, 5.0]


def test_the_average_is_frozen_and_apart_from_the_module() -> None:
    module = weights(1.0)
    average = ExponentialMovingAverage(module, decay=0.5)
    with torch.no_grad():
        next(module.parameters()).fill_(7.0)
    assert not average.module.training
    for parameter in average.module.parameters():
        assert not parameter.requires_grad
        assert parameter.tolist() == [1.0, 1.0]
