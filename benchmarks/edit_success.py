"""Does an edit do what it says, and nothing else? Raise each prototype to its 0.99 quantile, and look again.

    python -m benchmarks.edit_success --data DIRECTORY [--images 100] [--steps 20] [--rounds 4]

DIRECTORY holds Fashion-MNIST's official files. Each of the first test images is inverted under its own s
and regenerated with one entry of s at the prototype's 0.99 quantile, corrected as POST /edit does it: once
with nothing held, once with `preserve: "others"`. The edit succeeds where the re-encoded activation is above
that of the same image regenerated without the edit. Changes are against the given image, and in standard
deviations over the training data. Writes benchmarks/results/edit_success.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.edit_trials import EditTrials
from benchmarks.machine import describe
from model.bundle import Bundle
from model.schedule import NoiseSchedule
from model.transforms import Pixels
from service.pipeline.round_trip import round_trip
from service.settings import SHIPPED_BUNDLE
from training.data import load_fashion_mnist

RESULT = Path(__file__).parent / "results" / "edit_success.md"


@dataclass(frozen=True)
class EditSuccess:
    """One prototype raised in some images, the best of `rounds` rounds.

    raised: in how many images; before, asked and achieved: means of s_j; own_change and others_change: means
    of the prototype's own change and of the other prototypes' absolute changes, in standard deviations.
    """

    prototype: int
    holds_others: bool
    rounds: int
    images: int
    raised: int
    before: float
    asked: float
    achieved: float
    own_change: float
    others_change: float


@dataclass(frozen=True)
class Measurement:
    """All results, and the mean absolute change of a prototype where an image is only regenerated."""

    results: list[EditSuccess]
    unedited_change: float


def measure(
    bundle: Bundle,
    images: Pixels,
    prototypes: Sequence[int],
    *,
    steps: int,
    rounds: int,
    holds: Sequence[bool] = (False, True),
) -> Measurement:
    """Edit success of `prototypes` over images (n, C, H, W), after each round, others held or not."""
    trials = EditTrials(bundle, images)
    trip = round_trip(NoiseSchedule.from_config(bundle.config.schedule), steps)
    inverted = trials.invert(trip)
    plain = trials.reconstruct(trip, inverted)
    results = []
    for j in tqdm(prototypes, unit="prototype", disable=not sys.stderr.isatty()):
        others = [k for k in range(bundle.config.num_prototypes) if k != j]
        for holds_others in holds:
            trial = trials.edit(trip, inverted, j, held=others if holds_others else [], rounds=rounds)
            for count, pictures in enumerate(trial.after, 1):
                achieved, before = pictures.activations[:, j], plain.activations[:, j]
                results.append(
                    EditSuccess(
                        prototype=j,
                        holds_others=holds_others,
                        rounds=count,
                        images=len(images),
                        raised=int((achieved > before).sum()),
                        before=float(before.mean()),
                        asked=trials.high(j),
                        achieved=float(achieved.mean()),
                        own_change=float(trials.own_change(pictures, j).mean()),
                        others_change=float(trials.others_change(pictures, j).mean()),
                    )
                )
    change = np.abs(plain.activations - trials.given.activations) / trials.spread
    return Measurement(results, float(change.mean()))


def table_of(measurement: Measurement, *, bundle: Bundle, steps: int) -> str:
    """The results as Markdown."""
    results = measurement.results
    most = max(result.rounds for result in results)
    images = results[0].images
    free, holding = (
        [result for result in results if result.holds_others == holds and result.rounds == most]
        for holds in (False, True)
    )
    once = [result for result in results if result.rounds == 1 and not result.holds_others]
    lines = [
        "# Edit success",
        "",
        f"Bundle {bundle.name} {bundle.digest[:12]}, {images} test images, {steps} steps, "
        f"at most {most} rounds; {describe()}.",
        "Command: `python -m benchmarks.edit_success --data DIRECTORY "
        f"--images {images} --steps {steps} --rounds {most}`",
        "",
        f"Every one of {len(free)} prototypes was raised in each image. Raised: above the same image "
        "regenerated without the edit. Reached: share of the asked change. Own change, others' change: of "
        "the prototype, and absolute, of the other ones, against the given image, in standard deviations "
        "over the training data. Regenerating an image without an edit changes a prototype by "
        f"{measurement.unedited_change:.3f}.",
        "",
        "| others | rounds | raised | worst prototype | reached | own change | others' change | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for holds in (False, True):
        for rounds in range(1 + holds, most + 1):  # the first round is the same
            rows = [r for r in results if r.holds_others == holds and r.rounds == rounds]
            lines.append(f"| {'held' if holds else 'free'} | {rounds} {_summary(rows)}")
    lines += [
        "",
        f"After {most} rounds, for each prototype:",
        "",
        "| prototype | raised | raised, once | raised, others held | s_j before | asked | achieved "
        "| achieved, others held | others' change | others' change, held |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {f.prototype} | {f.raised} / {f.images} | {o.raised} | {h.raised} | {f.before:.2f} "
            f"| {f.asked:.2f} | {f.achieved:.2f} | {h.achieved:.2f} | {f.others_change:.2f} "
            f"| {h.others_change:.2f} |"
            for f, o, h in zip(free, once, holding, strict=True)
        ),
    ]
    return "\n".join(lines) + "\n"


def _summary(results: Sequence[EditSuccess]) -> str:
    worst = min(results, key=lambda result: result.raised)
    raised = sum(result.raised for result in results) / sum(result.images for result in results)
    reached = np.mean([(r.achieved - r.before) / (r.asked - r.before) for r in results])
    own = float(np.mean([result.own_change for result in results]))
    others = float(np.mean([result.others_change for result in results]))
    return (
        f"| {100 * raised:.1f}% | {worst.prototype}: {worst.raised} of {worst.images} | {reached:.2f} "
        f"| {own:.2f} | {others:.3f} | {others / own:.3f} |"
    )


def main() -> int:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--prototypes", type=int, nargs="*", help="default: all")
    options = parser.parse_args()
    bundle = Bundle.load(options.bundle)
    test = load_fashion_mnist(options.data, "test", bundle.config.image)
    prototypes = options.prototypes or range(bundle.config.num_prototypes)
    images = test.pixels[: options.images]
    measurement = measure(bundle, images, prototypes, steps=options.steps, rounds=options.rounds)
    table = table_of(measurement, bundle=bundle, steps=options.steps)
    print(table)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
