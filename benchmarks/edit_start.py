"""How far back into noise must an edit go? The trade of `start` and `inversion` of POST /edit.

    python -m benchmarks.edit_start [--bundle DIRECTORY] [--steps 20] [--rounds 4] [--starts 799 699 599 ...]

Each of the bundle's reference images (test split) is raised in each prototype to its 0.99 quantile, from
x_T ("full"), from fixed timesteps, and from where the bundle says that the prototype emerges ("auto"). The
bundle must say it: `python -m training remeasure` finds it out. Writes benchmarks/results/edit_start.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.edit_trials import EditTrials
from benchmarks.machine import describe
from benchmarks.result_file import bundle_argument, result_file
from model.bundle import Bundle
from service.engine.jobs import DenoiseResult
from service.pipeline.editing import Start, plan_edit
from service.pipeline.edits import Edit
from service.pipeline.round_trip import Inversion, RoundTrip
from service.settings import SHIPPED_BUNDLE
from training.evaluation.reconstruction import mean_psnr_db

STARTS = (799, 699, 599, 499, 449, 399, 349, 299, 249)


@dataclass(frozen=True)
class Way:
    """How an edit is done: all that is compared here."""

    start: Start
    inversion: Inversion
    holds_others: bool


@dataclass(frozen=True)
class Figures:
    """Means over edits.

    start_timestep: where they began; calls: of the network, with inversion and reconstruction; psnr_db: of
    the reconstruction; raised: share that left s_j above the given image's; reached: share of the asked
    change; own_change, others_change: in standard deviations; mse_elsewhere: outside the patches that match
    best, black 0, white 1.
    """

    start_timestep: float
    calls: float
    psnr_db: float
    raised: float
    reached: float
    own_change: float
    others_change: float
    mse_elsewhere: float

    @classmethod
    def mean(cls, figures: Sequence[Figures]) -> Figures:
        return cls(*np.mean([astuple(some) for some in figures], axis=0).tolist())


@dataclass(frozen=True)
class Trade:
    """What comes of one way: over all prototypes, and `raised` of the worst of them."""

    way: Way
    figures: Figures
    raised_worst: float


class Comparison:
    """Ways of editing some images, each round trip inverted once."""

    def __init__(self, trials: EditTrials, prototypes: Sequence[int], *, steps: int, rounds: int) -> None:
        self._trials = trials
        self._prototypes = prototypes
        self._steps = steps
        self._rounds = rounds
        self._inverted: dict[str, tuple[DenoiseResult, float]] = {}

    def trade(self, way: Way) -> Trade:
        """What comes of one way."""
        figures = [self._raise(prototype, way) for prototype in self._prototypes]
        return Trade(way, Figures.mean(figures), min(some.raised for some in figures))

    def _raise(self, j: int, way: Way) -> Figures:
        trials = self._trials
        plan = plan_edit(
            trials.bundle,
            [Edit(j, "max")],
            preserve="others" if way.holds_others else (),
            steps=self._steps,
            rounds=self._rounds,
            start=way.start,
            inversion=way.inversion,
        )
        inverted, psnr_db = self._way_there(plan.trip)
        trial = trials.edit(plan.trip, inverted, j, held=plan.held, rounds=self._rounds)
        pictures = trial.after[-1]
        before, after = trials.given.activations[:, j], pictures.activations[:, j]
        return Figures(
            start_timestep=plan.trip.start_timestep,
            calls=float(np.mean([plan.num_calls(count) for count in trial.rounds.tolist()])),
            psnr_db=psnr_db,
            raised=float((after > before).mean()),
            reached=float((after - before).mean() / (trials.high(j) - before).mean()),
            own_change=float(trials.own_change(pictures, j).mean()),
            others_change=float(trials.others_change(pictures, j).mean()),
            mse_elsewhere=float(trials.change_elsewhere(pictures, j).mean()),
        )

    def _way_there(self, trip: RoundTrip) -> tuple[DenoiseResult, float]:
        """All images inverted, and how well that gives them back."""
        if trip.name not in self._inverted:
            inverted = self._trials.invert(trip)
            again = self._trials.reconstruct(trip, inverted)
            psnr_db = mean_psnr_db(self._trials.given.pixels, again.pixels)
            self._inverted[trip.name] = inverted, psnr_db
        return self._inverted[trip.name]


def ways(starts: Sequence[int]) -> list[Way]:
    """All that are compared: every start by DDIM with nothing held, then the rest for "full" and "auto"."""
    ends: tuple[Start, Start] = ("full", "auto")
    compared = [Way(start, "ddim", False) for start in (ends[0], *starts, ends[1])]
    compared += [Way(start, "ddim", True) for start in ends]
    compared += [Way(start, "bdia", holds) for holds in (False, True) for start in ends]
    return compared


def table_of(trades: Sequence[Trade], heading: Sequence[str]) -> str:
    """The trades as Markdown, below the lines of `heading`."""
    lines = [
        "# Start of an edit",
        "",
        *heading,
        "",
        "Calls: of the network for one image, with inversion, reconstruction and all rounds. PSNR: of the "
        "reconstruction, at most 100. Raised: s_j, encoded again, is above the given image's. Reached: share "
        "of the asked change. Own change, others' change: of the prototype, and absolute, of the other ones, "
        "in standard deviations over the training data. MSE elsewhere: outside the patches that match the "
        "prototype best in the given and in the edited image, black 0, white 1.",
        "",
        "| start | inversion | others | starts at | calls | PSNR, dB | raised | worst prototype | reached "
        "| own change | others' change | ratio | MSE elsewhere |",
        "|---" * 13 + "|",
    ]
    for trade in trades:
        way, mean = trade.way, trade.figures
        lines.append(
            f"| {way.start} | {way.inversion} | {'held' if way.holds_others else 'free'} "
            f"| {mean.start_timestep:.0f} | {mean.calls:.1f} | {mean.psnr_db:.1f} | {100 * mean.raised:.1f}% "
            f"| {100 * trade.raised_worst:.0f}% | {mean.reached:.2f} | {mean.own_change:.2f} "
            f"| {mean.others_change:.3f} | {mean.others_change / mean.own_change:.3f} "
            f"| {mean.mse_elsewhere:.4f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument(
        "--starts", type=int, nargs="+", default=[799, 699, 599, 499, 449, 399, 349, 299, 249]
    )
    parser.add_argument("--prototypes", type=int, nargs="+", help="default: all")
    options = parser.parse_args()
    bundle = Bundle.load(options.bundle)
    if bundle.pictures is None:
        parser.error(f"{options.bundle} keeps no reference images")
    images = bundle.pictures.reference_images
    prototypes = options.prototypes or range(bundle.config.num_prototypes)
    comparison = Comparison(
        EditTrials(bundle, images), prototypes, steps=options.steps, rounds=options.rounds
    )
    compared = ways(options.starts)
    trades = [comparison.trade(way) for way in tqdm(compared, unit="way", disable=not sys.stderr.isatty())]
    heading = [
        f"Bundle {bundle.name} {bundle.digest[:12]}, its {len(images)} reference images (test split), "
        f"each raised in each of {len(prototypes)} prototypes to its 0.99 quantile, {options.steps} steps, "
        f"at most {options.rounds} rounds; {describe()}.",
        f"Command: `python -m benchmarks.edit_start{bundle_argument(bundle)} --steps {options.steps} "
        f"--rounds {options.rounds} --starts {' '.join(map(str, options.starts))}"
        + (f" --prototypes {' '.join(map(str, prototypes))}`" if options.prototypes else "`"),
    ]
    table = table_of(trades, heading)
    print(table)
    result_file("edit_start", bundle).write_text(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
