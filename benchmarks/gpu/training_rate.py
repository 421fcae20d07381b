"""How many images a second does training take on a GPU, and what share of its matrix rate is that?

    python -m benchmarks.gpu.training_rate [--out DIRECTORY] [--presets paper-fashion-mnist,small,...]
        [--batch-sizes 128,256,512,1024] [--variants eager,nchw,compile]

`Trainer` as it stands, in bf16 and with its average, on random pictures of the preset's size: which they are
does not matter for speed. "nchw" is the same without channels last, which torch's group normalisation on a
GPU does not know, and "compile" with the objective given to torch.compile, both at one batch size.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu.call import Call, carry_out, option_parser
from benchmarks.gpu.networks import TINY
from benchmarks.gpu.roofline import Roofline, count_flops, measure_roofline
from benchmarks.gpu.timing import synchronize
from training.config import TrainConfig
from training.data import Dataset
from training.devices import make_accelerator
from training.presets import PRESETS
from training.trainer import Trainer

PAPER = "paper-fashion-mnist"
MEASURED = (PAPER, "small", "small-cartoon-faces", "paper-celeba")
BATCH_SIZES = (128, 256, 512, 1024)
VARIANTS = ("eager", "nchw", "compile")
TARGET_IMAGES_PER_S = 10_000.0
NUM_PICTURES = 20_000
LOSS_TOLERANCE = 0.1
"""Between the losses of the first steps, eager and otherwise: dropout masks differ."""
EXPECTED_S = {"eager": 20.0, "nchw": 20.0, "compile": 120.0}
"""Of one case, for the budget."""
NEVER = 1 << 40
SEVERAL_STEPS = 5


@dataclass(frozen=True)
class Case:
    preset: str
    batch_size: int
    variant: str

    def __str__(self) -> str:
        return f"{self.preset}, batch {self.batch_size}, {self.variant}"


@dataclass(frozen=True)
class Outcome:
    """Images/s of each window; FLOPs an image, forwards and backwards; the mean loss of the first steps."""

    case: Case
    windows: tuple[float, ...]
    flops: float
    first_losses: float
    peak_memory_gib: float

    @property
    def images_per_s(self) -> float:
        return statistics.median(self.windows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = option_parser(__doc__)
    parser.add_argument("--presets", help=f"comma-separated (default: {','.join(MEASURED)})")
    parser.add_argument("--batch-sizes", help=f"(default: {','.join(map(str, BATCH_SIZES))})")
    parser.add_argument("--variants", help=f"(default: {','.join(VARIANTS)})")
    return carry_out(
        measure, parser, stem="training_rate", title="Training throughput on a GPU", arguments=arguments
    )


def measure(call: Call, options: argparse.Namespace) -> None:
    roofline = (
        measure_roofline(call.device, sizes=(64,), copy_bytes=2**20, window_s=0.01)
        if call.rehearsal
        else measure_roofline(call.device, sizes=(8192, 16384), copy_bytes=2**30)
    )
    call.report.figure("roofline", **vars(roofline))
    outcomes: list[Outcome] = []
    rows = []
    for case in cases(call, options):
        if not call.allows(0.0 if call.rehearsal else EXPECTED_S[case.variant], str(case)):
            continue
        try:
            outcome = _measure(call, case)
        except RuntimeError as error:  # torch's own: out of memory, or the compiler's
            reason = " ".join(str(error).split())[:300]
            call.report.skip(str(case), f"{type(error).__name__}: {reason}")
        else:
            outcomes.append(outcome)
            rows.append(_row(call, outcome, roofline))
        gc.collect()  # a trainer is part of a cycle: its memory is the next case's
        if call.device.type == "cuda":
            torch.cuda.empty_cache()
        call.save()
    call.report.table(
        f"Training, beside {roofline.matrix_rate / 1e12:.4g} TFLOP/s of bf16 matrices",
        ("preset", "batch", "variant", "images/s", "windows", "share of the matrix rate", "memory, GiB"),
        rows,
    )
    _compare_losses(call, outcomes)
    paper = [outcome for outcome in outcomes if outcome.case.preset == PAPER]
    if paper:
        best = max(paper, key=lambda outcome: outcome.images_per_s)
        call.report.target(
            f"training, {best.case}", best.images_per_s, TARGET_IMAGES_PER_S, "images/s", at_least=True
        )


def cases(call: Call, options: argparse.Namespace) -> list[Case]:
    """All that is asked for, the paper's network first, and what has to be compiled after the rest."""
    presets = call.chosen(options.presets, rehearsed=["tiny"], of=MEASURED)
    variants = call.chosen(options.variants, rehearsed=VARIANTS[:1], of=VARIANTS)
    sizes = call.chosen(options.batch_sizes, rehearsed=[8], of=BATCH_SIZES)
    found = [
        Case(preset, size, variant)
        for preset in presets
        for variant in variants
        for size in sizes
        # Compiling takes a minute: only the size at which a device is busy.
        if variant == "eager" or size == sizes[len(sizes) // 2]
    ]
    return sorted(found, key=lambda case: (case.preset != PAPER, case.variant == "compile"))


def configured(preset: str, batch_size: int) -> TrainConfig:
    """The preset in bf16, with an average, and with nothing that interrupts it."""
    base = TrainConfig(model=TINY) if preset == "tiny" else PRESETS[preset]
    return dataclasses.replace(
        base,
        batch_size=batch_size,
        num_images=NUM_PICTURES * 100,
        ema_decay=base.ema_decay or 0.999,
        precision="bf16",
        log_every=NEVER,
        sample_every=NEVER,
        checkpoint_every=NEVER,
    )


def random_pictures(config: TrainConfig, count: int) -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (count, *config.model.image.shape), np.uint8)
    return Dataset(pixels, np.zeros(count, np.int64))


def _measure(call: Call, case: Case) -> Outcome:
    if call.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    windows, window_s, count = (2, 0.05, 64) if call.rehearsal else (4, 2.0, NUM_PICTURES)
    config = configured(case.preset, case.batch_size)
    with tempfile.TemporaryDirectory() as directory:
        accelerator = make_accelerator(call.device.type)
        trainer = Trainer(config, random_pictures(config, count), Path(directory), accelerator)
        if case.variant == "nchw":
            trainer.memory_format = torch.contiguous_format
            trainer.patronus.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        flops = count_flops(lambda: trainer.train_step()) / case.batch_size
        if case.variant == "compile":
            torch._dynamo.reset()
            trainer.objective = torch.compile(trainer.objective, dynamic=False)
        first = [trainer.train_step()[0].total.item() for _ in range(SEVERAL_STEPS)]
        rates = []
        for _ in range(windows):
            synchronize(call.device)
            steps, started_at = 0, time.perf_counter()
            while time.perf_counter() - started_at < window_s:
                for _ in range(SEVERAL_STEPS):
                    losses, _ = trainer.train_step()
                losses.total.item()  # as the log does: no more than a few steps are queued ahead
                steps += SEVERAL_STEPS
            rates.append(steps * case.batch_size / (time.perf_counter() - started_at))
        last = losses.total.item()
    call.report.check(f"{case}: the loss is a number", math.isfinite(last), f"{first[0]:.4g} … {last:.4g}")
    memory = torch.cuda.max_memory_allocated() / 2**30 if call.device.type == "cuda" else 0.0
    return Outcome(case, tuple(rates), flops, statistics.mean(first), memory)


def _row(call: Call, outcome: Outcome, roofline: Roofline) -> list[str]:
    """Of the table; the raw figures are kept."""
    case, share = outcome.case, outcome.images_per_s * outcome.flops / roofline.matrix_rate
    call.report.figure("training", **vars(case), windows=outcome.windows, flops=outcome.flops, share=share)
    if not call.rehearsal:
        call.report.check(f"{case}: no faster than the device", 0.0 < share <= 1.0, f"{share:.1%}")
    return [
        case.preset,
        str(case.batch_size),
        case.variant,
        f"{outcome.images_per_s:.5g}",
        ", ".join(f"{rate:.5g}" for rate in outcome.windows),
        f"{share:.1%}",
        f"{outcome.peak_memory_gib:.1f}",
    ]


def _compare_losses(call: Call, outcomes: Sequence[Outcome]) -> None:
    """A variant of the objective is the objective."""
    eager = {
        (o.case.preset, o.case.batch_size): o.first_losses for o in outcomes if o.case.variant == "eager"
    }
    for outcome in outcomes:
        expected = eager.get((outcome.case.preset, outcome.case.batch_size))
        if outcome.case.variant != "eager" and expected is not None:
            difference = abs(outcome.first_losses - expected) / expected
            call.report.check(
                f"{outcome.case}: first losses as without", difference <= LOSS_TOLERANCE, f"{difference:.1%}"
            )


if __name__ == "__main__":
    sys.exit(main())
