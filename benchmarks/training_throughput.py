"""How fast does training run beside the published loop, written plainly?

    python -m benchmarks.training_throughput --data DIRECTORY [--preset paper-fashion-mnist] [--batch-size 32]
        [--steps 4] [--windows 3]

Both train the same network from the same initial weights on Fashion-MNIST, turn about in one process. The
plain loop is what the paper describes: one process, float32, a DataLoader whose dataset decodes and resizes
one picture at a time (each image's idx bytes, bicubically), AdamW, no average. Ours is `Trainer` as it
stands, with its average and its terms on s. Prints images/s of every window and their medians, and
writes benchmarks/results/training_throughput.md with one section for each preset.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from model.config import ImageConfig
from model.patronus import Patronus
from model.transforms import to_pixels
from training.config import TrainConfig
from training.data import load_fashion_mnist, read_idx
from training.devices import make_accelerator
from training.presets import PRESETS
from training.trainer import Trainer

RESULT = Path(__file__).parent / "results" / "training_throughput.md"


class OnePictureAtATime(TorchDataset[Tensor]):
    """Decodes nothing before it is asked, and resizes every picture every time."""

    def __init__(self, images: np.ndarray, image: ImageConfig) -> None:
        self.images = images
        self.image = image

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        pixels = to_pixels(Image.fromarray(self.images[index]), self.image)
        return torch.tensor(pixels).float() / 127.5 - 1.0


class PlainLoop:
    """The published training step: s of the clean image, eps at a random t, mean squared error, AdamW."""

    def __init__(self, patronus: Patronus, images: np.ndarray, config: TrainConfig) -> None:
        self.patronus = patronus.train()
        self.num_timesteps = config.model.schedule.num_timesteps
        self.device = patronus.activation_mean.device
        self.loader = DataLoader(
            OnePictureAtATime(images, config.model.image), config.batch_size, shuffle=True, drop_last=True
        )
        self.optimizer = torch.optim.AdamW(patronus.parameters(), lr=config.optimizer.learning_rate)
        self.batches: Iterator[Tensor] = iter(self.loader)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            x_0 = next(self.batches).to(self.device)
            timesteps = torch.randint(self.num_timesteps, (len(x_0),), device=self.device)
            eps = torch.randn_like(x_0)
            x_t, _, _ = self.patronus.add_noise(x_0, eps, timesteps)
            activations, _ = self.patronus.encoder(x_0)
            loss = torch.nn.functional.mse_loss(self.patronus(x_t, timesteps, activations), eps)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            loss.item()  # as a progress bar would


def measure(config: TrainConfig, data: Path, *, steps: int, windows: int) -> tuple[list[float], list[float]]:
    """Images/s of each window of `steps` steps, of the plain loop and of ours."""
    dataset = load_fashion_mnist(data, "train", config.model.image)
    raw = read_idx(data / "train-images-idx3-ubyte.gz")
    accelerator = make_accelerator()
    with tempfile.TemporaryDirectory() as directory:
        trainer = Trainer(config, dataset, Path(directory), accelerator)
        plain = PlainLoop(copy.deepcopy(trainer.patronus), raw, config)
        rates: tuple[list[float], list[float]] = ([], [])
        for window in range(windows + 1):  # the first warms up
            for which, rate in enumerate(rates):
                started = time.perf_counter()
                if which == 0:
                    plain.run(steps)
                else:
                    for _ in range(steps):
                        trainer.train_step()[0].total.item()
                if accelerator.device.type == "cuda":
                    torch.cuda.synchronize()
                if window:
                    rate.append(steps * config.batch_size / (time.perf_counter() - started))
    return rates


def section(preset: str, config: TrainConfig, plain: list[float], ours: list[float], command: str) -> str:
    """One preset's result as Markdown."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    ratio = statistics.median(ours) / statistics.median(plain)
    rows = [
        f"| {name} | {statistics.median(rates):.1f} | {', '.join(f'{rate:.1f}' for rate in rates)} |"
        for name, rates in (("published loop, plain", plain), ("ours", ours))
    ]
    return "\n".join(
        [
            f"## {preset}",
            "",
            f"Batch {config.batch_size}, {device}, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}; ours {ratio:.2f} times as fast.",
            f"Command: `{command}`",
            "",
            "| loop | images/s, median | windows |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def keep(preset: str, text: str) -> None:
    """Put a preset's section into the results file, in place of its older one."""
    sections: dict[str, str] = {}
    if RESULT.exists():
        for part in RESULT.read_text().split("## ")[1:]:
            sections[part.splitlines()[0]] = "## " + part.rstrip() + "\n"
    sections[preset] = text
    RESULT.write_text("# Training throughput\n\n" + "\n".join(sections[name] for name in sorted(sections)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preset", default="paper-fashion-mnist", choices=sorted(PRESETS))
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4, help="optimiser steps in a window")
    parser.add_argument("--windows", type=int, default=3)
    options = parser.parse_args()
    never = 1 << 40
    config = dataclasses.replace(
        PRESETS[options.preset],
        batch_size=options.batch_size,
        log_every=never,
        sample_every=never,
        checkpoint_every=never,
        precision="auto",
    )
    plain, ours = measure(config, options.data, steps=options.steps, windows=options.windows)
    command = (
        f"python -m benchmarks.training_throughput --data DIRECTORY --preset {options.preset} "
        f"--batch-size {options.batch_size} --steps {options.steps} --windows {options.windows}"
    )
    text = section(options.preset, config, plain, ours, command)
    print(text)
    keep(options.preset, text)


if __name__ == "__main__":
    main()
