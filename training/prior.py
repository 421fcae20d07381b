"""Train the latent prior on the activations of a frozen encoder, keep it, and draw from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from model.config import ConfigError, PriorConfig, config_from_dict, config_to_dict
from model.encoder import PrototypeEncoder
from model.prior import Prior, PriorStep
from model.samplers import SamplerTable, dpmpp_2m
from model.schedule import NoiseSchedule
from model.statistics import ActivationStatistics
from training.ema import ExponentialMovingAverage
from training.evaluation.weights import weights_digest
from training.sampling import run_steps

PRIOR = "prior.pt"

NUM_STEPS = 10_000
BATCH_SIZE = 256
LEARNING_RATE = 2e-3
EMA_DECAY = 0.999
WARMUP_STEPS = 200
SAMPLING_BATCH_SIZE = 2000

Float32 = npt.NDArray[np.float32]


class PriorError(Exception):
    """A prior is missing, damaged or belongs to another encoder, or activations cannot train one."""


def train_prior(
    activations: Float32,
    config: PriorConfig,
    *,
    num_steps: int = NUM_STEPS,
    batch_size: int = BATCH_SIZE,
    learning_rate: float = LEARNING_RATE,
    ema_decay: float = EMA_DECAY,
    seed: int = 0,
    device: str = "cpu",
) -> Prior:
    """The averaged prior of activations (N, m), N >= 2, after `num_steps`; the same one for the same seed.

    It works on their normal scores; see `fit_prior` for the rest. Raises PriorError where the activations
    are not of the prior's prototypes, or not finite.
    """
    if activations.ndim != 2 or activations.shape[1] != config.num_prototypes or len(activations) < 2:
        raise PriorError(
            f"activations have shape {activations.shape}, a prior of {config.num_prototypes} prototypes "
            f"needs (N, {config.num_prototypes}) with N >= 2"
        )
    if not np.isfinite(activations).all():
        raise PriorError("activations hold values that are not finite: the encoder has diverged")
    return fit_prior(
        ActivationStatistics.measure(activations).to_scores(activations),
        config,
        num_steps=num_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        seed=seed,
        device=device,
    )


def fit_prior(
    vectors: Float32,
    config: PriorConfig,
    *,
    num_steps: int = NUM_STEPS,
    batch_size: int = BATCH_SIZE,
    learning_rate: float = LEARNING_RATE,
    ema_decay: float = EMA_DECAY,
    seed: int = 0,
    device: str = "cpu",
) -> Prior:
    """A denoiser of vectors (N, m) as they are, without normalising them.

    AdamW with a linear warm-up and a cosine decay to 0, MSE of eps or v, low noise seen more often.
    Raises PriorError where num_steps or batch_size is not positive.
    """
    for name, number in (("num_steps", num_steps), ("batch_size", batch_size)):
        if number < 1:
            raise PriorError(f"{name} must be >= 1, not {number}")
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same draws on every device
    with torch.random.fork_rng(devices=[]):  # initial weights and dropout
        torch.manual_seed(seed)
        prior = Prior(config).to(device)
        z = torch.from_numpy(vectors).to(device)  # (N, m)
        average = ExponentialMovingAverage(prior, ema_decay)
        optimizer = torch.optim.AdamW(
            prior.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True
        )
        with tqdm(range(num_steps), desc="prior", unit="step") as progress:
            for step in progress:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * _schedule(step, num_steps)
                z_0 = z[torch.randint(len(z), (batch_size,), generator=generator).to(device)]
                timesteps = _timesteps(batch_size, config.schedule.num_timesteps, generator).to(device)
                eps = torch.randn(z_0.shape, generator=generator).to(device)
                z_t, alpha, sigma = prior.add_noise(z_0, eps, timesteps)
                target = eps if config.prediction == "eps" else alpha * eps - sigma * z_0
                loss = F.mse_loss(prior(z_t, timesteps), target)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                average.update(prior, step + 1)
                if step % 100 == 0:
                    progress.set_postfix(loss=f"{loss.item():.4f}")
    trained = average.module
    assert isinstance(trained, Prior)
    return trained.cpu()


def prior_table(config: PriorConfig) -> SamplerTable:
    """The sampler that a prior is sampled with."""
    return dpmpp_2m(NoiseSchedule.from_config(config.schedule), config.sampling_steps)


def hold_out(activations: Float32, *, seed: int = 0) -> tuple[Float32, Float32]:
    """Activations (N, m) as a training part and a tenth that the prior never sees, in random order."""
    order = np.random.default_rng(seed).permutation(len(activations))
    count = len(activations) // 10
    return activations[order[count:]], activations[order[:count]]


def sample_activations(
    prior: Prior, statistics: ActivationStatistics, table: SamplerTable, count: int, *, seed: int
) -> Float32:
    """`count` activation vectors (count, m) drawn through all steps of `table`.

    `statistics` are those of the activations that the prior was trained on.
    """
    return statistics.from_scores(sample_vectors(prior, table, count, seed=seed))


def sample_vectors(prior: Prior, table: SamplerTable, count: int, *, seed: int) -> Float32:
    """`count` vectors (count, m) of the space that the prior was fitted in."""
    generator = torch.Generator().manual_seed(seed)
    z_T = torch.randn((count, prior.config.num_prototypes), generator=generator)
    batches = torch.split(z_T, SAMPLING_BATCH_SIZE)
    parts = [run_steps(PriorStep(prior), table, batch, generator=generator) for batch in batches]
    return torch.cat(parts).numpy()


def save_prior(prior: Prior, run: Path, encoder: PrototypeEncoder) -> None:
    """Write prior.pt into the run directory; an old one is replaced only by a complete new one."""
    path = run / PRIOR
    partial = path.with_suffix(".partial")
    run.mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "config": config_to_dict(prior.config),
            "encoder": weights_digest(encoder),
            "model": prior.state_dict(),
        },
        partial,
    )
    partial.replace(path)


def prior_sampler(prior: Prior, activations: Float32) -> Callable[[np.random.Generator, int], Float32]:
    """Draws s (count, m) from a prior; `activations` (N, m) are those of its training data."""
    statistics = ActivationStatistics.measure(activations)
    table = prior_table(prior.config)

    def draw(rng: np.random.Generator, count: int) -> Float32:
        return sample_activations(prior, statistics, table, count, seed=int(rng.integers(2**31)))

    return draw


def has_prior(run: Path) -> bool:
    """Whether a prior was trained in this run directory."""
    return (run / PRIOR).exists()


def load_prior(run: Path, encoder: PrototypeEncoder) -> Prior:
    """The prior of a run. Raises PriorError where it is absent, damaged, or was not trained for `encoder`."""
    path = run / PRIOR
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise PriorError(f"{path} is missing: train the prior first, or name another run") from error
    except Exception as error:
        raise PriorError(f"{path} cannot be read: {error}") from error
    names = {"config", "encoder", "model"}
    lacking = sorted(names - set(state)) if isinstance(state, dict) else sorted(names)
    if lacking:
        raise PriorError(f"{path} is no prior of this program: it lacks {', '.join(lacking)}")
    found = weights_digest(encoder)
    if state["encoder"] != found:
        raise PriorError(
            f"{path} was trained for encoder {str(state['encoder'])[:12]}, this one is {found[:12]}: "
            "train the prior again"
        )
    try:
        prior = Prior(config_from_dict(PriorConfig, state["config"]))
        prior.load_state_dict(state["model"])
    except (ConfigError, RuntimeError, TypeError, AttributeError) as error:
        raise PriorError(f"{path} does not hold what its configuration says: {error}") from error
    return prior.eval().requires_grad_(False)


def _schedule(step: int, num_steps: int) -> float:
    """Factor of the learning rate: linear warm-up, times a cosine from 1 to 0."""
    warmup = min(WARMUP_STEPS, max(num_steps // 2, 1))
    return min(1.0, (step + 1) / warmup) * 0.5 * (1.0 + math.cos(math.pi * step / num_steps))


def _timesteps(count: int, num_timesteps: int, generator: torch.Generator) -> Tensor:
    """Timesteps T u² with one u in each of `count` equal parts of [0, 1), in random order.

    Low noise, where the scores' fine structure is learned, is seen more often than by uniform ones.
    Stratified as in Kingma et al. 2021 (Variational Diffusion Models, appendix I.1).
    """
    parts = torch.randperm(count, generator=generator) + torch.rand(1, generator=generator)
    return ((parts / count).square() * num_timesteps).long().clamp_(max=num_timesteps - 1)
