"""Run a sampler table with torch modules: the loop that the engine runs row by row."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from model.patronus import DenoiseStep, Patronus
from model.samplers import SamplerTable

Step = Callable[..., tuple[Tensor, Tensor, Tensor]]
"""(x, timesteps, memory, noise, coefficients) -> x_next, memory_next, x_0_hat."""
OnStep = Callable[[Tensor], None]
"""Told x_0_hat (B, ...) after every step."""


@torch.no_grad()
def run_table(
    patronus: Patronus,
    table: SamplerTable,
    x: Tensor,
    activations: Tensor,
    *,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Take x (B, C, H, W) through all steps of `table` under s (B, m); returns the final x.

    Raises ValueError where the table adds noise and no generator is given.
    """
    step = DenoiseStep(patronus)

    def conditional(x: Tensor, timesteps: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        outputs: tuple[Tensor, Tensor, Tensor] = step(x, timesteps, activations, *rest)
        return outputs

    return run_steps(conditional, table, x, generator=generator, on_step=on_step)


@torch.no_grad()
def run_steps(
    step: Step,
    table: SamplerTable,
    x: Tensor,
    *,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Take x (B, ...) through all steps of `table` by one network's `step`; returns the final x.

    Raises ValueError where the table adds noise and no generator is given.
    """
    if table.is_stochastic and generator is None:
        raise ValueError("this sampler adds noise: pass a generator")
    memory = torch.zeros_like(x)
    noise = torch.zeros_like(x)
    for timestep, row in zip(table.timesteps.tolist(), table.coefficients, strict=True):
        coefficients = torch.tensor(row, dtype=torch.float32, device=x.device).expand(len(x), -1)
        if table.is_stochastic:
            noise = torch.randn(x.shape, generator=generator).to(x.device)
        timesteps = torch.full((len(x),), timestep, dtype=torch.int64, device=x.device)
        x, memory, x_0_hat = step(x, timesteps, memory, noise, coefficients)
        if on_step is not None:
            on_step(x_0_hat)
    return x
