"""Draw and reconstruct many images in batches, under one progress bar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from model.patronus import Patronus
from model.samplers import Sampler, SamplerTable, ddim, ddim_inversion, sampler_table
from model.schedule import NoiseSchedule
from model.transforms import Pixels, from_x_0, to_x_0
from training.sampling import run_table

LEARNED_S, RESAMPLED_S, PRIOR_S = "learned_s", "resampled_s", "prior_s"
LEARNED_SAMPLERS: tuple[Sampler, ...] = ("ddim", "dpmpp_2m")
UNCONDITIONAL_SAMPLER: Sampler = "dpmpp_2m"
UNCONDITIONAL_STEPS = 20
BATCH_SIZE = 128

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Drawing:
    """One way to draw images: a sampler, its number of steps, and where s comes from."""

    sampler: Sampler
    steps: int
    source: str

    def __str__(self) -> str:
        return f"{self.sampler}_{self.steps}_steps_{self.source}"


def drawings(steps: Sequence[int], num_timesteps: int, sources: Sequence[str]) -> Iterator[Drawing]:
    """Every sampler with every number of steps up to T from learned s, and one short one from the others."""
    for source in sources:
        learned = source == LEARNED_S
        for sampler in LEARNED_SAMPLERS if learned else (UNCONDITIONAL_SAMPLER,):
            for count in steps if learned else (UNCONDITIONAL_STEPS,):
                if count <= num_timesteps:
                    yield Drawing(sampler, count, source)


class ImageSampling:
    """Runs sampler tables of one model over arrays of images; samples are rounded to uint8.

    All drawings start at the same x_T, which follows from `seed`.
    """

    def __init__(self, patronus: Patronus, progress: tqdm[Any], seed: int) -> None:
        self.schedule = NoiseSchedule.from_config(patronus.config.schedule)
        self._patronus = patronus
        self._progress = progress
        self._seed = seed

    def draw(self, drawing: Drawing, activations: Float32) -> Pixels:
        """Images (N, C, H, W) from s (N, m) and random x_T."""
        generator = torch.Generator().manual_seed(self._seed)
        x_T = torch.randn((len(activations), *self._patronus.config.image.shape), generator=generator)
        table = sampler_table(drawing.sampler, self.schedule, drawing.steps, clip=1.0)
        return self._run([table], x_T, activations)

    def reconstruct(self, steps: int, pixels: Pixels, activations: Float32) -> Pixels:
        """Images (N, C, H, W) inverted to x_T with DDIM and sampled again with as many steps."""
        tables = [ddim_inversion(self.schedule, steps), ddim(self.schedule, steps)]
        return self._run(tables, torch.from_numpy(to_x_0(pixels)), activations)

    def _run(self, tables: Sequence[SamplerTable], x: Tensor, activations: Float32) -> Pixels:
        device = self._patronus.activation_mean.device
        finished = []
        for start in range(0, len(x), BATCH_SIZE):
            x_t = x[start : start + BATCH_SIZE].to(device)
            s = torch.from_numpy(activations[start : start + BATCH_SIZE]).to(device)
            for table in tables:
                x_t = run_table(self._patronus, table, x_t, s)
                self._progress.update(len(table) * len(x_t))
            finished.append(from_x_0(x_t.cpu().numpy()))
        return np.concatenate(finished)
