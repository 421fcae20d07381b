"""Train one of our models at full quality on a GPU, in as many calls as it takes.

    python -m benchmarks.gpu.train --preset small --data DIRECTORY --run RUN --train-s 1400 [--out DIRECTORY]
    python -m benchmarks.gpu.train --data DIRECTORY --run RUN [--shards OUT/shards] [--out DIRECTORY]

The first call measures how many images a second there are, and plans as many epochs as fit into --train-s
seconds of all calls together (or takes --num-images); the learning rate decays to 0 at their end. Every call
trains until its budget ends and leaves the run, checkpoint and log, in OUT/shards in parts below 16 MiB. The
next one goes on in RUN, or, where that is gone, from --shards; without --preset no run is begun. Cartoon
faces are drawn and need no --data.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.call import Call, carry_out, option_parser
from benchmarks.gpu.networks import TINY
from benchmarks.gpu.shards import join, split
from benchmarks.gpu.training_rate import random_pictures
from model.config import config_from_dict
from training.config import TrainConfig, with_overrides
from training.data import Dataset, load_dataset
from training.devices import make_accelerator
from training.presets import PRESETS
from training.trainer import CHECKPOINT, METRICS, Trainer, read_checkpoint

BATCH_SIZE, LEARNING_RATE, EMA_DECAY, TRAIN_S = 512, 2e-3, 0.999, 480.0
"""The presets' batch of 64 leaves a GPU idle. Eight times the batch, and for it twice the learning rate."""
PLAN = ("preset", "init_from", "set", "train_s", "num_images", "batch_size", "learning_rate", "ema_decay")
"""Options of the first call alone; the others find them in the checkpoint."""
PROBE_S = 15.0
PROMISED = 0.9
"""Of the measured rate, for what logs, samples and checkpoints take."""
CHUNK_S = 30.0
"""Between two looks at the budget."""
SAVE_S = 30.0
"""For the last checkpoint and its parts."""
MAX_PARTS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    parser = option_parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run directory, as of `training train`")
    parser.add_argument(
        "--shards", type=Path, help="parts of the run, where RUN itself is not there any more"
    )
    parser.add_argument("--data", type=Path, help="directory with the data set's official files")
    parser.add_argument("--cache", type=Path, help="where resized pixels are kept")
    parser.add_argument("--compile", action="store_true", help="give the objective to torch.compile")
    plan = parser.add_argument_group("of the first call")
    plan.add_argument("--preset", choices=["tiny", *sorted(PRESETS)], help="begins a run")
    plan.add_argument("--init-from", type=Path, help="begin at the averaged weights of this other run")
    plan.add_argument("--set", action="append", metavar="NAME=VALUE", help="as of `training train`")
    length = plan.add_mutually_exclusive_group()
    length.add_argument("--train-s", type=float, help=f"seconds of all calls together (default: {TRAIN_S:g})")
    length.add_argument("--num-images", type=int, help="instead of what fits into those")
    plan.add_argument("--batch-size", type=int, help=f"default: {BATCH_SIZE}")
    plan.add_argument("--learning-rate", type=float, help=f"default: {LEARNING_RATE:g}")
    plan.add_argument("--ema-decay", type=float, help=f"default: {EMA_DECAY:g}")
    return carry_out(measure, parser, stem="train", title="Training on a GPU", arguments=arguments)


def measure(call: Call, options: argparse.Namespace) -> None:
    run: Path = options.run
    if options.shards is not None and not (run / CHECKPOINT).exists():
        join(options.shards, run)
        print(f"the run comes from {options.shards}", flush=True)
    is_new = not (run / CHECKPOINT).exists()
    if is_new and options.preset is None:  # else a run that did not come along would begin anew, unnoticed
        raise SystemExit(f"{run} holds no checkpoint: --preset begins a run, --shards goes on with one")
    if is_new:
        config = _first_config(options)
        dataset = _load(config, options)
        if options.num_images is None:
            config = _planned(call, config, dataset, options)
    else:
        given = [name for name in PLAN if getattr(options, name) is not None]
        if given:
            flag = "--" + given[0].replace("_", "-")
            raise SystemExit(f"{run} holds a run already, whose plan is fixed: leave out {flag}")
        config = config_from_dict(TrainConfig, read_checkpoint(run)["config"])
        dataset = _load(config, options)
    trainer = _trainer(call, config, dataset, run, options)
    if not is_new:
        trainer.load()
    elif options.init_from is not None:
        trainer.start_from(options.init_from)
    first_step = trainer.step
    print(f"step {first_step} of {config.num_steps}, {config.num_images:,} images planned", flush=True)
    seconds = train_until(
        trainer,
        has_time=lambda: call.budget.allows(SAVE_S + CHUNK_S),
        chunk_s=0.2 if call.rehearsal else CHUNK_S,
    )
    _tell(call, options, trainer, first_step, seconds, num_pictures=len(dataset))


def train_until(
    trainer: Trainer,
    *,
    has_time: Callable[[], bool],
    chunk_s: float,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Train in stretches of about `chunk_s`, each with a checkpoint, to the last step or while there is time.

    Gives the seconds it took. A run that is done, or for which there is no time, is left as it is.
    """
    begun_at, steps = clock(), 10
    while trainer.step < trainer.config.num_steps and has_time():
        started_at, before = clock(), trainer.step
        trainer.run(until_step=trainer.step + steps)
        step_s = (clock() - started_at) / (trainer.step - before)
        steps = max(1, min(20 * steps, round(chunk_s / max(step_s, 1e-6))))  # the first ones warm up
    return clock() - begun_at


def _first_config(options: argparse.Namespace) -> TrainConfig:
    base = TrainConfig(model=TINY) if options.preset == "tiny" else PRESETS[options.preset]
    batch_size = options.batch_size or BATCH_SIZE
    overrides: dict[str, Any] = {
        "precision": "bf16",
        "ema_decay": EMA_DECAY if options.ema_decay is None else options.ema_decay,
        "optimizer.learning_rate": options.learning_rate or LEARNING_RATE,
        "batch_size": batch_size,
        "num_images": options.num_images or 1000 * batch_size,  # for the measurement of the rate
    }
    for assignment in options.set or []:
        name, separator, value = assignment.partition("=")
        if not separator:
            raise SystemExit(f"--set takes name=value, not {assignment!r}")
        overrides[name] = value
    return with_overrides(base, overrides)


def _planned(call: Call, config: TrainConfig, dataset: Dataset, options: argparse.Namespace) -> TrainConfig:
    """As many images as fit into --train-s, by the rate of a run that is thrown away."""
    probe_s = 0.2 if call.rehearsal else PROBE_S
    train_s = options.train_s or TRAIN_S
    with tempfile.TemporaryDirectory() as directory:
        trainer = _trainer(call, config, dataset, Path(directory), options)
        for _ in range(3):
            trainer.train_step()[0].total.item()  # warms up
        steps, started_at = 0, time.perf_counter()
        while time.perf_counter() - started_at < probe_s:
            trainer.train_step()[0].total.item()
            steps += 1
        rate = steps * config.batch_size / (time.perf_counter() - started_at)
    epochs = max(1, math.floor(PROMISED * rate * train_s / len(dataset)))
    call.report.figure("plan", images_per_s=rate, train_s=train_s, epochs=epochs)
    print(f"{rate:,.0f} images/s: {epochs} epochs in {train_s:.0f} s", flush=True)
    return dataclasses.replace(config, num_images=max(config.batch_size, epochs * len(dataset)))


def _trainer(
    call: Call, config: TrainConfig, dataset: Dataset, run: Path, options: argparse.Namespace
) -> Trainer:
    trainer = Trainer(config, dataset, run, make_accelerator(call.device.type))
    if options.compile:
        trainer.objective = torch.compile(trainer.objective, dynamic=False)
    return trainer


def _load(config: TrainConfig, options: argparse.Namespace) -> Dataset:
    if config.model == TINY:
        return random_pictures(config, 64)
    return load_dataset(config.dataset, options.data, "train", config.model.image, cache=options.cache)


def _tell(
    call: Call,
    options: argparse.Namespace,
    trainer: Trainer,
    first_step: int,
    seconds: float,
    *,
    num_pictures: int,
) -> None:
    """The table, and the run in parts."""
    config, name = trainer.config, options.run.name
    steps = trainer.step - first_step
    path = options.run / METRICS
    log = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    losses = [record["denoising"] for record in log]
    call.report.check("the run has a checkpoint", (options.run / CHECKPOINT).exists())
    call.report.check("every logged loss is a number", bool(losses) and all(map(math.isfinite, losses)))
    paths = split(options.run, call.out / "shards") if losses else []
    num_parts = max(0, len(paths) - 1)
    what = f"the run fits into {MAX_PARTS} parts"
    call.report.check(what, 0 < num_parts <= MAX_PARTS, f"{num_parts} parts")
    state = "done" if trainer.step == config.num_steps else "to be continued"
    call.report.table(
        f"{name}: {state}",
        ("steps", "of", "images", "epochs planned", "images/s in this call", "last loss", "parts"),
        [
            [
                str(trainer.step),
                str(config.num_steps),
                f"{trainer.step * config.batch_size:,}",
                f"{config.num_images / num_pictures:.1f}",
                f"{steps * config.batch_size / seconds:,.0f}" if steps else "none trained",
                f"{losses[-1]:.4f}" if losses else "",
                str(num_parts),
            ]
        ],
    )
    call.report.figure(
        "training",
        run=name,
        first_step=first_step,
        last_step=trainer.step,
        num_steps=config.num_steps,
        batch_size=config.batch_size,
        seconds=seconds,
        log=log[-50:],
    )
    print(f"{name} is {state}: step {trainer.step} of {config.num_steps}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
