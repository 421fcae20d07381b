"""Train encoder and denoiser jointly, resumable bit for bit."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from model.config import ConfigError, ModelConfig, config_from_dict, config_to_dict
from model.encoder import similarity
from model.patronus import Patronus
from model.samplers import ddim, ddim_inversion
from model.schedule import NoiseSchedule
from model.transforms import from_x_0
from training.batches import Batches
from training.config import TrainConfig
from training.data import Dataset
from training.decoupling import Intervention, draw_intervention
from training.ema import ExponentialMovingAverage
from training.initialisation import initialise_encoder, initialise_prototypes
from training.losses import activation_correlation, denoising_loss, nearest_patch_loss
from training.objective import Losses, Objective
from training.picture_grid import picture_grid
from training.sampling import run_table

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
PARENT = "parent.json"
CONFIG = "config.json"
METRICS = "metrics.jsonl"
NUM_FIRST_IMAGES = 512
"""Images from which prototypes start, and at most as many on which the log measures the average."""


class TrainingDivergedError(Exception):
    """The loss is not a number any more."""


class CheckpointError(Exception):
    """A checkpoint is missing, damaged, or belongs to another configuration."""


class Trainer:
    """One run: model, average, optimiser, and the step counter that all randomness follows from.

    Randomness of a step is seeded by (seed, step) alone and drawn for the batch of all processes
    together, so a run resumed from a checkpoint continues exactly as if it had not been stopped, and
    any number of processes takes the same steps, but for dropout, whose masks each process draws for its
    own images. Raises ConfigError where they cannot share a batch.
    """

    def __init__(
        self, config: TrainConfig, dataset: Dataset, directory: Path, accelerator: Accelerator
    ) -> None:
        self.config = config
        self.directory = directory
        self.accelerator = accelerator
        # Several processes on a CPU are given "cpu:0", to which torch.load can map nothing.
        on_cpu = accelerator.device.type == "cpu"
        self.device = torch.device("cpu") if on_cpu else accelerator.device
        if config.batch_size % accelerator.num_processes:
            raise ConfigError(
                f"batch_size {config.batch_size} cannot be shared by {accelerator.num_processes} processes: "
                "make it a multiple of their number"
            )
        self.batches = Batches(
            dataset.pixels,
            size=config.batch_size,
            seed=config.seed,
            device=self.device,
            rank=accelerator.process_index,
            num_processes=accelerator.num_processes,
        )
        torch.manual_seed(config.seed)
        # Tensor cores want channels last; on a CPU without bf16 units the default layout is faster.
        cuda = self.device.type == "cuda"
        self.memory_format = torch.channels_last if cuda else torch.contiguous_format
        self.patronus = Patronus(config.model).to(self.device)
        self.patronus.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        initialise_encoder(self.patronus, config.encoder_init)
        first_images = self._x_0(self.batches.sample(NUM_FIRST_IMAGES))
        initialise_prototypes(self.patronus, first_images, config.prototype_init, seed=config.seed)
        if config.freeze_encoder:
            self.patronus.encoder.requires_grad_(False)
        self._objective = Objective(self.patronus, config).to(self.device)
        if config.model.denoiser.standardize:
            with torch.no_grad():
                self._objective.update_statistics(self.patronus.encoder(first_images)[0], momentum=1.0)
        self.optimizer = torch.optim.AdamW(
            self.patronus.parameters(),
            lr=config.optimizer.learning_rate,
            betas=(config.optimizer.beta_1, config.optimizer.beta_2),
            weight_decay=config.optimizer.weight_decay,
            fused=True,
        )
        self.step = 0
        self.ema = ExponentialMovingAverage(self.patronus, config.ema_decay)
        # The optimizer stays as it is: what Accelerate would add (scaling, skipped steps) is for float16.
        self.objective = accelerator.prepare_model(self._objective)

    def run(self, *, until_step: int | None = None) -> None:
        """Train to the last step (or `until_step`), logging, sampling and saving on the way."""
        if self.accelerator.is_main_process:
            self._begin_log()
            # What a launcher was asked for is not always what it starts.
            log.info(
                "training on %s: %d images a step, shared by %d processes",
                self.device.type,
                self.config.batch_size,
                self.accelerator.num_processes,
            )
        last = self.config.num_steps if until_step is None else min(self.config.num_steps, until_step)
        images = self.config.batch_size
        seconds, logged = 0.0, self.step
        with tqdm(
            total=last * images,
            initial=self.step * images,
            unit="image",
            disable=not self.accelerator.is_main_process,
        ) as progress:
            while self.step < last:
                started = time.monotonic()
                losses, grad_norm = self.train_step()
                seconds += time.monotonic() - started
                progress.update(images)
                finished = self.step == last
                if self.step % self.config.log_every == 0 or finished:
                    started = time.monotonic()
                    total = losses.total.item()  # waits for the device
                    seconds += time.monotonic() - started
                    if not math.isfinite(total):
                        raise TrainingDivergedError(
                            f"the loss is {total} at step {self.step}: lower the learning rate; the last "
                            f"checkpoint in {self.directory} is older"
                        )
                    rate = images * (self.step - logged) / seconds
                    seconds, logged = 0.0, self.step
                    self._log(losses, grad_norm, rate, progress)
                if self.step % self.config.sample_every == 0 or finished:
                    self._save_samples()
                if self.step % self.config.checkpoint_every == 0 or finished:
                    self.save()

    def _begin_log(self) -> None:
        """Write config.json, and leave of metrics.jsonl what lies before the current step."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_json(self.directory / CONFIG, config_to_dict(self.config))
        path = self.directory / METRICS
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join(line for line in lines if json.loads(line)["step"] <= self.step))

    def save(self) -> None:
        """Write the checkpoint, in one process; the old one is replaced only by a complete new one."""
        if not self.accelerator.is_main_process:
            return
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

        Dropout, which has no weights, may differ.
        The other run's configuration is kept as parent.json. Raises CheckpointError.
        """
        state = read_checkpoint(run, self.device)
        other = config_from_dict(TrainConfig, state["config"]).model
        if _without_dropout(other) != _without_dropout(self.config.model):
            raise CheckpointError(f"{run / CHECKPOINT} holds a model of another shape")
        self.patronus.load_state_dict(state["ema"])
        self.ema.module.load_state_dict(state["ema"])
        if not self.accelerator.is_main_process:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        parent = {"stopped_after_steps": state["step"], "training": state["config"]}
        write_json(self.directory / PARENT, parent)

    def train_step(self) -> tuple[Losses, Tensor]:
        """One optimiser step -> the losses, and the gradient's norm before clipping."""
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate_at(self.step)
        self.patronus.train()
        x_0, eps, timesteps, intervention = self._noised_batch()
        with self._autocast():
            losses: Losses = self.objective(x_0, eps, timesteps, intervention)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        max_norm = config.optimizer.max_grad_norm or math.inf
        grad_norm = torch.nn.utils.clip_grad_norm_(self.patronus.parameters(), max_norm)
        self.optimizer.step()
        self.step += 1
        self.ema.update(self.patronus, self.step)
        return losses, grad_norm

    def _noised_batch(self) -> tuple[Tensor, Tensor, Tensor, Intervention | None]:
        """This process' x_0 and eps (B, C, H, W) and timesteps (B,) of the current step, and what is
        intervened on where prototypes are to be decoupled."""
        accelerator, config = self.accelerator, self.config
        generator = torch.Generator(self.device)
        generator.manual_seed(config.seed * 1_000_003 + self.step)
        share = slice(
            accelerator.process_index * config.batch_size // accelerator.num_processes,
            (accelerator.process_index + 1) * config.batch_size // accelerator.num_processes,
        )
        x_0 = self._x_0(self.batches.pixels(self.step))
        shape = (config.batch_size, *config.model.image.shape)
        if config.horizontal_flip:
            flipped = torch.rand(shape[0], 1, 1, 1, generator=generator, device=self.device) < 0.5
            x_0 = torch.where(flipped[share], x_0.flip(3), x_0)
        timesteps = self._timesteps(generator)[share]
        eps = torch.randn(shape, generator=generator, device=self.device)[share]
        intervention = None
        if config.loss.decoupled_pairs:  # drawn last: a run without the term sees the same noise
            intervention = draw_intervention(
                config.loss.decoupled_pairs,
                batch_size=config.batch_size,
                share=share,
                num_timesteps=config.model.schedule.num_timesteps,
                generator=generator,
            )
        # Dropout draws from the default generator: a stream of its own for every process.
        torch.manual_seed((config.seed * 1_000_003 + self.step) * 4099 + accelerator.process_index)
        return x_0, eps.contiguous(memory_format=self.memory_format), timesteps, intervention

    def _x_0(self, pixels: Tensor) -> Tensor:
        x_0 = pixels.to(torch.float32) / 127.5 - 1.0
        return x_0.contiguous(memory_format=self.memory_format)

    def _timesteps(self, generator: torch.Generator) -> Tensor:
        """Uniform timesteps, one in each of batch_size equal parts of 0 … T - 1, in random order.

        Stratified, as in Kingma et al. 2021 (Variational Diffusion Models, appendix I.1).
        """
        count, num_timesteps = self.config.batch_size, self.config.model.schedule.num_timesteps
        order = torch.randperm(count, generator=generator, device=self.device)
        parts = order + torch.rand(1, generator=generator, device=self.device)
        return (parts * (num_timesteps / count)).long().clamp_(max=num_timesteps - 1)

    def _autocast(self) -> AbstractContextManager[Any]:
        precision = self.config.precision
        if precision == "auto":
            precision = "bf16" if self.device.type == "cuda" else "fp32"
        if precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _log(self, losses: Losses, grad_norm: Tensor, rate: float, progress: tqdm[Any]) -> None:
        # The terms on s are those of all processes already; the denoising errors are each process' own, and
        # so are the terms that decouple.
        denoising = self.accelerator.reduce(losses.denoising.detach(), reduction="mean")
        decoupling = reencoding = None
        if self.config.loss.decoupled_pairs:
            terms = torch.stack([losses.leakage, losses.shortfall]).detach()
            decoupling = self.accelerator.reduce(terms, reduction="mean")
        if self.config.loss.reencoding_weight > 0.0:
            reencoding = self.accelerator.reduce(losses.reencoding.detach(), reduction="mean")
        if not self.accelerator.is_main_process:
            return
        record = {
            "step": self.step,
            "images": self.step * self.config.batch_size,
            "images_per_s": round(rate, 1),
            "learning_rate": self.config.learning_rate_at(self.step - 1),
            "denoising": denoising.item(),
            "nearest_patch": losses.nearest_patch.item(),
            "decorrelation": losses.decorrelation.item(),
            "variance": losses.variance.item(),
            "distinctness": losses.distinctness.item(),
            "raw_spread": losses.raw_spread.item(),
            "grad_norm": grad_norm.item(),
        }
        if decoupling is not None:
            record |= {"leakage": decoupling[0].item(), "shortfall": decoupling[1].item()}
        if reencoding is not None:
            record["reencoding"] = reencoding.item()
        if self.step % (10 * self.config.log_every) == 0:
            record |= self._conditioning_metrics()
        with (self.directory / METRICS).open("a") as file:
            file.write(json.dumps(record) + "\n")
        progress.set_postfix(loss=f"{record['denoising']:.4f}", spread=f"{record['raw_spread']:.3f}")

    @torch.no_grad()
    def _conditioning_metrics(self) -> dict[str, float]:
        """Whether s is used, and still about patches, measured with the averaged weights."""
        patronus = self.ema.module
        assert isinstance(patronus, Patronus)
        images = self._x_0(self.batches.sample(NUM_FIRST_IMAGES))
        timestep = min(300, self.config.model.schedule.num_timesteps - 1)
        smallest, losses = [], []
        for x_0 in images.tensor_split(
            -(-len(images) // self.config.batch_size)
        ):  # no more than a step takes
            distances = patronus.encoder.distances(patronus.encoder.features(x_0))
            s = patronus.encoder.activations(distances)
            smallest.append(distances.amin(dim=(2, 3)))
            losses.append((len(x_0), *conditioning_losses(patronus, x_0, s, timestep)))
        nearest = torch.cat(smallest)  # (n, m)
        activations = similarity(nearest)
        correlation = activation_correlation(activations).abs().fill_diagonal_(0.0)
        true, shuffled = (sum(row[0] * row[i] for row in losses) / len(images) for i in (1, 2))
        return {
            "ema_raw_spread": activations.std(dim=0).mean().item(),
            "ema_nearest_patch": nearest_patch_loss(nearest).item(),
            "ema_max_correlation": correlation.amax(dim=1).mean().item(),
            "ema_eps_loss_true_300": true,
            "ema_eps_loss_shuffled_300": shuffled,
        }

    def _save_samples(self) -> None:
        """A picture: images, their 20-step reconstructions, and samples from the same s and random x_T."""
        if not self.accelerator.is_main_process:
            return
        patronus = self.ema.module
        assert isinstance(patronus, Patronus)
        x_0 = self._x_0(self.batches.sample(16))
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


def _without_dropout(model: ModelConfig) -> ModelConfig:
    return dataclasses.replace(model, denoiser=dataclasses.replace(model.denoiser, dropout=0.0))


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON; an old file is replaced only by a complete new one."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.replace(path)


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
