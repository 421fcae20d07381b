"""Run a sampler table with torch modules: the loop that the engine runs row by row."""

from __future__ import annotations

import torch
from torch import Tensor

from model.patronus import DenoiseStep, Patronus
from model.samplers import SamplerTable


@torch.no_grad()
def run_table(
    patronus: Patronus,
    table: SamplerTable,
    x: Tensor,
    activations: Tensor,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Take x (B, C, H, W) through all steps of `table` under s (B, m); returns the final x.

    Raises ValueError where the table adds noise and no generator is given.
    """
    if table.is_stochastic and generator is None:
        raise ValueError("this sampler adds noise: pass a generator")
    step = DenoiseStep(patronus)
    memory = torch.zeros_like(x)
    noise = torch.zeros_like(x)
    for timestep, row in zip(table.timesteps.tolist(), table.coefficients, strict=True):
        coefficients = torch.tensor(row, dtype=torch.float32, device=x.device).expand(len(x), -1)
        if table.is_stochastic:
            noise = torch.randn(x.shape, generator=generator).to(x.device)
        timesteps = torch.full((len(x),), timestep, dtype=torch.int64, device=x.device)
        x, memory, _ = step(x, timesteps, activations, memory, noise, coefficients)
    return x
