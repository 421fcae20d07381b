"""Exponential moving average of weights and buffers."""

from __future__ import annotations

import copy

import torch
from torch import nn


class ExponentialMovingAverage:
    """A frozen copy of `module` that follows it: average = decay * average + (1 - decay) * value.

    The decay warms up as (1 + step) / (10 + step) so that early averages forget the initial weights.
    Buffers follow at once, without averaging.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        averages: list[torch.Tensor] = list(self.module.parameters())
        values: list[torch.Tensor] = list(module.parameters())
        torch._foreach_lerp_(averages, values, 1.0 - decay)
        for average, value in zip(self.module.buffers(), module.buffers(), strict=True):
            average.copy_(value)
