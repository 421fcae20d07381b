"""What driving each prototype does to all of them: samples are generated with it low, and with it high."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from model.effects import MeasuredEffects
from model.patronus import Patronus
from model.samplers import ddim
from model.schedule import NoiseSchedule
from model.statistics import ActivationStatistics
from model.transforms import from_x_0, to_x_0
from training.sampling import run_table

BATCH_SIZE = 64

Float32 = npt.NDArray[np.float32]


@torch.no_grad()
def measure_effects(
    patronus: Patronus,
    activations: Float32,
    statistics: ActivationStatistics,
    *,
    x_T: Float32 | None = None,
    steps: int,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> MeasuredEffects:
    """Effects over n >= 2 samples with s (n, m) = `activations`, as POST /diagnose finds them.

    x_T (n, C, H, W) follows from `seed` where it is not given. Samples are taken as the service does: DDIM,
    |x̂₀| <= 1, with `steps` steps or all T where there are fewer, and 8-bit pixels are encoded again.
    """
    device = patronus.activation_mean.device
    schedule = NoiseSchedule.from_config(patronus.config.schedule)
    table = ddim(schedule, min(steps, schedule.num_timesteps), clip=1.0)
    n, m = activations.shape
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same draws on every device
    noise = torch.randn((n, *patronus.config.image.shape), generator=generator)
    if x_T is not None:
        noise = torch.from_numpy(x_T)
    driven = np.broadcast_to(activations, (2, m, n, m)).copy()
    for side, values in enumerate((statistics.low, statistics.high)):
        driven[side, np.arange(m), :, np.arange(m)] = values[:, None]
    rows = driven.reshape(-1, m)
    achieved = np.empty_like(rows)
    with tqdm(total=len(rows) * len(table), desc="effects", unit="image-step") as progress:
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            samples = np.arange(len(rows))[part] % n
            x = run_table(patronus, table, noise[samples].to(device), torch.from_numpy(rows[part]).to(device))
            pixels = torch.from_numpy(to_x_0(from_x_0(x.cpu().numpy()))).to(device)
            achieved[part] = patronus.encoder(pixels)[0].cpu().numpy()
            progress.update(len(samples) * len(table))
    low, high = achieved.reshape(2, m, n, m)
    return MeasuredEffects.of(low, high, statistics)
