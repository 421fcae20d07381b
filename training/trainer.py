"""Train encoder and denoiser jointly, resumable bit for bit."""

from __future__ import annotations

import json
import logging
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model.config import config_from_dict, config_to_dict
from model.patronus import Patronus
from model.samplers import ddim, ddim_inversion
from model.schedule import NoiseSchedule
from model.transforms import from_x_0
from training.config import TrainConfig
from training.data import Dataset
from training.ema import ExponentialMovingAverage
from training.losses import (
    activation_correlation,
    decorrelation_loss,
    denoising_loss,
    nearest_patch_loss,
)
from training.picture_grid import picture_grid
from training.prototype_init import initialise_prototypes
from training.sampling import run_table

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
PARENT = "parent.json"


class CheckpointError(Exception):
    """A checkpoint is missing, damaged, or belongs to another configuration."""


@dataclass(frozen=True)
class StepMetrics:
    """What one optimiser step measured; losses are means over the batch."""

    denoising: Tensor
    nearest_patch: Tensor
    decorrelation: Tensor
    raw_spread: Tensor
    grad_norm: Tensor


class Trainer:
    """One run: model, average, optimiser, and the step counter that all randomness follows from.

    Randomness of a step is seeded by (seed, step) alone, so a run resumed from a checkpoint
    continues exactly as if it had not been stopped.
    """

    def __init__(self, config: TrainConfig, dataset: Dataset, directory: Path, device: str) -> None:
        self.config = config
        self.directory = directory
        self.device = torch.device(device)
        self.pixels = torch.from_numpy(dataset.pixels).to(self.device)
        torch.manual_seed(config.seed)
        # Tensor cores want channels last; on a CPU without bf16 units the default layout is faster.
        cuda = self.device.type == "cuda"
        self.memory_format = torch.channels_last if cuda else torch.contiguous_format
        self.patronus = Patronus(config.model).to(self.device)
        self.patronus.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(
            self.patronus.parameters(),
            lr=config.learning_rate,
            betas=(config.beta_1, config.beta_2),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.step = 0
        first_batch = self._images(self._indices(0))
        initialise_prototypes(self.patronus, first_batch, seed=config.seed)
        if config.model.denoiser.standardize:
            with torch.no_grad():
                self._update_statistics(self.patronus.encoder(first_batch)[0], momentum=1.0)
        self.ema = ExponentialMovingAverage(self.patronus, config.ema_decay)

    def run(self, *, until_step: int | None = None) -> None:
        """Train to the last step (or `until_step`), logging, sampling and saving on the way."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "config.json").write_text(json.dumps(config_to_dict(self.config), indent=2) + "\n")
        last = min(self.config.num_steps, until_step or self.config.num_steps)
        images = self.config.batch_size
        started, logged = time.monotonic(), self.step
        with tqdm(total=last * images, initial=self.step * images, unit="image") as progress:
            while self.step < last:
                metrics = self._train_step()
                progress.update(images)
                finished = self.step == last
                if self.step % self.config.log_every == 0 or finished:
                    now = time.monotonic()
                    rate = images * (self.step - logged) / (now - started)
                    started, logged = now, self.step
                    self._log(metrics, rate, progress)
                if self.step % self.config.sample_every == 0 or finished:
                    self._save_samples()
                    started = time.monotonic()
                if self.step % self.config.checkpoint_every == 0 or finished:
                    self.save()

    def save(self) -> None:
        """Write the checkpoint; the old one is replaced only by a complete new one."""
        path = self.directory / CHECKPOINT
        partial = path.with_suffix(".partial")
        torch.save(
            {
                "config": config_to_dict(self.config),
                "step": self.step,
                "model": self.patronus.state_dict(),
                "ema": self.ema.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
            partial,
        )
        partial.replace(path)

    def load(self) -> None:
        """Continue from the checkpoint in the run directory. Raises CheckpointError."""
        state = read_checkpoint(self.directory, self.device)
        if config_from_dict(TrainConfig, state["config"]) != self.config:
            raise CheckpointError(
                f"{self.directory / CHECKPOINT} was written by another configuration; "
                "resume with the options of its config.json"
            )
        self.patronus.load_state_dict(state["model"])
        self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def start_from(self, run: Path) -> None:
        """Begin at the averaged weights of another run with the same model, with a new optimiser.

        The other run's configuration is kept as parent.json. Raises CheckpointError.
        """
        state = read_checkpoint(run, self.device)
        if config_from_dict(TrainConfig, state["config"]).model != self.config.model:
            raise CheckpointError(f"{run / CHECKPOINT} holds a model of another shape")
        self.patronus.load_state_dict(state["ema"])
        self.ema.module.load_state_dict(state["ema"])
        self.directory.mkdir(parents=True, exist_ok=True)
        parent = {"stopped_after_steps": state["step"], "training": state["config"]}
        (self.directory / PARENT).write_text(json.dumps(parent, indent=2) + "\n")

    def _train_step(self) -> StepMetrics:
        config = self.config
        torch.manual_seed(config.seed * 1_000_003 + self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate_at(self.step)
        self.patronus.train()
        x_0 = self._images(self._indices(self.step))  # (B, C, H, W)
        if config.horizontal_flip:
            flipped = torch.rand(len(x_0), 1, 1, 1, device=self.device) < 0.5
            x_0 = torch.where(flipped, x_0.flip(3), x_0)
        timesteps = self._timesteps(len(x_0))
        eps = torch.randn_like(x_0)
        x_t, alpha, sigma = self.patronus.add_noise(x_0, eps, timesteps)
        target = eps if config.model.prediction == "eps" else alpha * eps - sigma * x_0

        with self._autocast():
            features = self.patronus.encoder.features(x_0)
            distances = self.patronus.encoder.distances(features)  # (B, m, h, w)
            activations = self.patronus.encoder.activations(distances)  # (B, m)
            if config.model.denoiser.standardize:
                self._update_statistics(activations.detach(), momentum=config.statistics_momentum)
            prediction = self.patronus(x_t, timesteps, activations)
        denoising = denoising_loss(prediction, target)
        nearest_patch = nearest_patch_loss(distances)
        decorrelation = decorrelation_loss(activations)
        loss = (
            denoising
            + config.nearest_patch_weight * nearest_patch
            + config.decorrelation_weight * decorrelation
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        grad_norm = torch.nn.utils.clip_grad_norm_(self.patronus.parameters(), config.max_grad_norm)
        self.optimizer.step()
        self.step += 1
        self.ema.update(self.patronus, self.step)
        return StepMetrics(
            denoising.detach(),
            nearest_patch.detach(),
            decorrelation.detach(),
            activations.detach().std(dim=0).mean(),
            grad_norm,
        )

    def _indices(self, step: int) -> Tensor:
        """Images of a step: every epoch is a permutation of its own, drawn from (seed, epoch)."""
        total, size = len(self.pixels), self.config.batch_size
        positions = np.arange(step * size, (step + 1) * size)
        indices = np.empty(size, dtype=np.int64)
        for epoch in np.unique(positions // total):
            order = np.random.default_rng((self.config.seed, int(epoch))).permutation(total)
            here = positions // total == epoch
            indices[here] = order[positions[here] % total]
        return torch.from_numpy(indices).to(self.device)

    def _images(self, indices: Tensor) -> Tensor:
        pixels = self.pixels[indices].to(torch.float32)
        x_0 = pixels / 127.5 - 1.0
        return x_0.contiguous(memory_format=self.memory_format)

    def _timesteps(self, count: int) -> Tensor:
        """Uniform timesteps, one in each of `count` equal parts of 0 … T - 1, in random order.

        Stratified, as in Kingma et al. 2021 (Variational Diffusion Models, appendix I.1).
        """
        num_timesteps = self.config.model.schedule.num_timesteps
        parts = torch.randperm(count, device=self.device) + torch.rand(1, device=self.device)
        return (parts * (num_timesteps / count)).long().clamp_(max=num_timesteps - 1)

    @torch.no_grad()
    def _update_statistics(self, activations: Tensor, *, momentum: float) -> None:
        self.patronus.activation_mean.lerp_(activations.mean(dim=0), momentum)
        spread = activations.std(dim=0).clamp(min=1e-4)
        self.patronus.activation_std.lerp_(spread, momentum)

    def _autocast(self) -> AbstractContextManager[Any]:
        precision = self.config.precision
        if precision == "auto":
            precision = "bf16" if self.device.type == "cuda" else "fp32"
        if precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _log(self, metrics: StepMetrics, rate: float, progress: tqdm[Any]) -> None:
        record = {
            "step": self.step,
            "images": self.step * self.config.batch_size,
            "images_per_s": round(rate, 1),
            "learning_rate": self.config.learning_rate_at(self.step - 1),
            "denoising": metrics.denoising.item(),
            "nearest_patch": metrics.nearest_patch.item(),
            "decorrelation": metrics.decorrelation.item(),
            "raw_spread": metrics.raw_spread.item(),
            "grad_norm": metrics.grad_norm.item(),
        }
        if self.step % (10 * self.config.log_every) == 0:
            record |= self._conditioning_metrics()
        with (self.directory / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        progress.set_postfix(loss=f"{record['denoising']:.4f}", spread=f"{record['raw_spread']:.3f}")

    @torch.no_grad()
    def _conditioning_metrics(self) -> dict[str, float]:
        """Whether s is used, and still about patches, measured with the averaged weights."""
        patronus = self.ema.module
        assert isinstance(patronus, Patronus)
        x_0 = self._images(torch.arange(min(512, len(self.pixels)), device=self.device))
        distances = patronus.encoder.distances(patronus.encoder.features(x_0))
        activations = patronus.encoder.activations(distances)
        correlation = activation_correlation(activations).abs().fill_diagonal_(0.0)
        timestep = min(300, self.config.model.schedule.num_timesteps - 1)
        true, shuffled = conditioning_losses(patronus, x_0, activations, timestep)
        return {
            "ema_raw_spread": activations.std(dim=0).mean().item(),
            "ema_nearest_patch": nearest_patch_loss(distances).item(),
            "ema_max_correlation": correlation.amax(dim=1).mean().item(),
            "ema_eps_loss_true_300": true,
            "ema_eps_loss_shuffled_300": shuffled,
        }

    def _save_samples(self) -> None:
        """A picture: images, their 20-step reconstructions, and samples from the same s and random x_T."""
        patronus = self.ema.module
        assert isinstance(patronus, Patronus)
        x_0 = self._images(torch.arange(min(16, len(self.pixels)), device=self.device))
        activations, _ = patronus.encoder(x_0)
        schedule = NoiseSchedule.from_config(self.config.model.schedule)
        steps = 20
        x_T = run_table(patronus, ddim_inversion(schedule, steps), x_0, activations)
        generator = torch.Generator().manual_seed(self.config.seed)
        noise = torch.randn(x_0.shape, generator=generator).to(self.device)
        rows = [
            x_0,
            run_table(patronus, ddim(schedule, steps), x_T, activations),
            run_table(patronus, ddim(schedule, steps, clip=1.0), noise, activations),
        ]
        grid = picture_grid([from_x_0(row.cpu().numpy()) for row in rows])
        (self.directory / "samples").mkdir(exist_ok=True)
        grid.save(self.directory / "samples" / f"step-{self.step:07d}.png")


@torch.no_grad()
def conditioning_losses(
    patronus: Patronus, x_0: Tensor, activations: Tensor, timestep: int, *, seed: int = 0
) -> tuple[float, float]:
    """MSE of eps at one timestep with each image's own s, and with the s of its neighbour in the batch.

    x_0 (B, C, H, W), activations (B, m). The same noise serves both, so they differ only by s.
    """
    generator = torch.Generator().manual_seed(seed)
    eps = torch.randn(x_0.shape, generator=generator).to(x_0.device)
    timesteps = torch.full((len(x_0),), timestep, dtype=torch.int64, device=x_0.device)
    x_t, alpha, sigma = patronus.add_noise(x_0, eps, timesteps)
    losses = []
    for s in (activations, activations.roll(1, dims=0)):
        prediction = patronus(x_t, timesteps, s)
        if patronus.config.prediction == "v":  # eps = sigma x_t + alpha v
            prediction = sigma * x_t + alpha * prediction
        losses.append(denoising_loss(prediction, eps).item())
    return losses[0], losses[1]


def read_checkpoint(directory: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The checkpoint of a run directory as plain tensors and values. Raises CheckpointError."""
    path = directory / CHECKPOINT
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: train first, or name another run") from error
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    lacking = sorted({"config", "step", "model", "ema", "optimizer"} - set(state))
    if lacking:
        raise CheckpointError(f"{path} is no checkpoint of this program: it lacks {', '.join(lacking)}")
    return state


def load_averaged_model(directory: Path) -> tuple[Patronus, TrainConfig]:
    """The averaged weights of a run, ready for evaluation and export."""
    state = read_checkpoint(directory)
    config = config_from_dict(TrainConfig, state["config"])
    patronus = Patronus(config.model)
    patronus.load_state_dict(state["ema"])
    return patronus.eval(), config
