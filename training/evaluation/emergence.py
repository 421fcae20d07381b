"""When each prototype appears: x̂₀ of many images is encoded after every step of sampling."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from model.emergence import Emergence, emergence_timesteps
from model.patronus import Patronus
from model.samplers import ddim
from model.schedule import NoiseSchedule
from training.sampling import run_table

NUM_STEPS = 50
BATCH_SIZE = 64

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


def measure_emergence(
    patronus: Patronus,
    activations: Float32,
    *,
    steps: int = NUM_STEPS,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> Int64:
    """Timesteps (n, m) at which the prototypes emerge in n images, or `model.emergence.NEVER`."""
    curves, timesteps = emergence_curves(patronus, activations, steps=steps, seed=seed, batch_size=batch_size)
    return emergence_timesteps(curves, timesteps)


@torch.no_grad()
def emergence_curves(
    patronus: Patronus,
    activations: Float32,
    *,
    steps: int = NUM_STEPS,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> tuple[Float32, Int64]:
    """Activations (n, k, m) of x̂₀ after each of k steps in n images, and the timesteps (k,) of the steps.

    The images have s (n, m) = `activations` and random x_T, which follow from `seed`, and are sampled as the
    service does: DDIM, |x̂₀| <= 1, with `steps` steps or all T where there are fewer.
    """
    device = patronus.activation_mean.device
    schedule = NoiseSchedule.from_config(patronus.config.schedule)
    table = ddim(schedule, min(steps, schedule.num_timesteps), clip=1.0)
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same draws on every device
    x_T = torch.randn((len(activations), *patronus.config.image.shape), generator=generator)
    curves = []
    with tqdm(total=len(activations) * len(table), desc="emergence", unit="image-step") as progress:
        for start in range(0, len(x_T), batch_size):
            x = x_T[start : start + batch_size].to(device)
            s = torch.from_numpy(activations[start : start + batch_size]).to(device)
            seen: list[Tensor] = []

            def encode(x_0_hat: Tensor, seen: list[Tensor] = seen) -> None:
                seen.append(patronus.encoder(x_0_hat)[0].cpu())  # (B, m)
                progress.update(len(x_0_hat))

            run_table(patronus, table, x, s, on_step=encode)
            curves.append(torch.stack(seen, dim=1).numpy())  # (B, k, m)
    return np.concatenate(curves), table.timesteps


def order_stability(emergence: Int64) -> float | None:
    """Whether prototypes emerge in an order of their own: Spearman's correlation of their median timesteps
    in one half of the images with those in the other half.

    emergence: (n, m) as `measure_emergence` gives it; images have other s and x_T each. Counted are
    prototypes that emerge in both halves; None where these are fewer than 3, or all emerge at once.
    """
    halves = [Emergence.over_images(emergence[start::2]) for start in (0, 1)]
    in_both = (halves[0].count > 0) & (halves[1].count > 0)
    first, second = (half.median[in_both] for half in halves)
    if len(first) < 3 or np.ptp(first) == 0.0 or np.ptp(second) == 0.0:
        return None
    return float(spearmanr(first, second).statistic)
