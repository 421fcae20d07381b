"""Are the answers about cartoon faces right? Their truth is known, so every table here is held against it.

    python -m benchmarks.ground_truth where      [--bundle DIRECTORY] [--faces 100]
    python -m benchmarks.ground_truth edits      [--bundle DIRECTORY] [--faces 32] [--steps 20] [--rounds 4]
    python -m benchmarks.ground_truth when       [--bundle DIRECTORY] [--images 128] [--data DIRECTORY]
    python -m benchmarks.ground_truth stability  [--bundle DIRECTORY] [--data DIRECTORY]
    python -m benchmarks.ground_truth seeds      [--images 48000] [--runs DIRECTORY]
    python -m benchmarks.ground_truth shortcuts  [--images 48000] [--models 4] [--init-from RUN]
                                                 [--runs DIRECTORY]

`seeds` and `shortcuts` train what they need and keep it in --runs (runs/ground-truth): a run that is complete
is read again, one that broke off goes on. A `shortcuts` model begins at the averaged weights of --init-from,
any run of cartoon faces, where that is given. `when` and `stability` (against noise) need no truth and take
any bundle; the data set is the one that it was trained on, and --data its directory. Each prints its table,
and keeps it as benchmarks/results/ground_truth/<table>.md (with the bundle's name where that is not
cartoon-faces).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ground_truth import edits, seeds, shortcuts, stability, when, where
from benchmarks.ground_truth.judge import load_judge
from benchmarks.ground_truth.small_models import RUNS, SIZE, model_of, small_config
from benchmarks.ground_truth.subject import Subject
from benchmarks.machine import describe
from benchmarks.result_file import result_file
from model.bundle import Bundle
from training.data import Dataset, load_dataset
from training.data.cartoon_faces import CARTOON_FACES
from training.remeasure import load_bundle_weights

BUNDLES = Path(__file__).parents[2] / "bundles"
USUAL = "cartoon-faces"
"""The bundle whose tables bear no name."""
NUM_NOISY = 1000


def main() -> int:
    """Measure, print and keep one table."""
    options = _parser().parse_args()
    table = TABLES[options.table](options)
    command = f"python -m benchmarks.ground_truth {options.table}" + _arguments(options)
    heading = [f"# {table.title}", "", f"{describe()}.", f"Command: `{command}`", ""]
    text = "\n".join([*heading, *table.lines]) + "\n"
    print(text)
    result_file(f"ground_truth/{options.table}", table.bundle, usual=USUAL).write_text(text)
    return 0


@dataclass(frozen=True)
class Table:
    """What is printed and kept; bundle: what it is about, None for models trained for it."""

    title: str
    lines: list[str]
    bundle: Bundle | None = None


def _where(options: argparse.Namespace) -> Table:
    subject = Subject(options.bundle)
    lines = where.table_of(where.measure(subject, options.faces))
    return Table(f"Where: {_named(subject)}", lines, subject.bundle)


def _edits(options: argparse.Namespace) -> Table:
    subject = Subject(options.bundle)
    judge = load_judge(subject.bundle.config.image.height)
    measurement = edits.measure(
        subject, judge, num_faces=options.faces, steps=options.steps, rounds=options.rounds
    )
    return Table(f"Edits: {_named(subject)}", edits.table_of(measurement, judge), subject.bundle)


def _when(options: argparse.Namespace) -> Table:
    subject = Subject(options.bundle)
    s, _ = subject.encode(_test_split(subject, options.data).pixels[: options.images])
    patronus = load_bundle_weights(subject.bundle)
    order = when.measure(patronus, subject.attributes, subject.statistics, s)
    return Table(f"When: {_named(subject)}", when.table_of(order), subject.bundle)


def _stability(options: argparse.Namespace) -> Table:
    subject = Subject(options.bundle)
    images = _test_split(subject, options.data).pixels[:NUM_NOISY]
    lines = stability.noise_lines(stability.measure(subject, images))
    return Table(f"Stability: {_named(subject)}", lines, subject.bundle)


def _seeds(options: argparse.Namespace) -> Table:
    first, second = (
        seeds.measure(small_config(CARTOON_FACES, num_images=options.images, seed=seed), options.runs)
        for seed in (0, 1)
    )
    title = f"Two training runs of {SIZE}x{SIZE} cartoon faces, seeds 0 and 1"
    return Table(title, seeds.table_of(first, second))


def _shortcuts(options: argparse.Namespace) -> Table:
    size = SIZE if options.init_from is None else model_of(options.init_from).image.height
    readings = shortcuts.measure(
        load_judge(size),
        num_images=options.images,
        num_models=options.models,
        runs=options.runs,
        init_from=options.init_from,
    )
    title = f"Shortcuts: {options.models} models of {size}x{size} cartoon faces"
    return Table(title, shortcuts.table_of(readings))


def _named(subject: Subject) -> str:
    return f"{subject.bundle.name} {subject.bundle.digest[:12]}"


def _test_split(subject: Subject, data: Path | None) -> Dataset:
    name = str(subject.bundle.provenance["dataset"])
    return load_dataset(name, data, "test", subject.bundle.config.image)


def _arguments(options: argparse.Namespace) -> str:
    """What was asked for, as it is typed; places of data and runs are not kept."""
    parts = []
    for name, value in vars(options).items():
        flag = f"--{name.replace('_', '-')}"
        if name in ("table", "runs") or value is None:
            continue
        if name == "data":
            parts.append(f"{flag} DIRECTORY")
        elif name == "bundle":
            parts.append(f"{flag} bundles/{value.name}")
        elif name == "init_from":
            parts.append(f"{flag} RUN")
        else:
            parts.append(f"{flag} {value}")
    return "".join(f" {part}" for part in parts)


TABLES: dict[str, Callable[[argparse.Namespace], Table]] = {
    "where": _where,
    "edits": _edits,
    "when": _when,
    "stability": _stability,
    "seeds": _seeds,
    "shortcuts": _shortcuts,
}
NUMBERS: dict[str, dict[str, int]] = {
    "where": {"faces": 100},
    "edits": {"faces": 32, "steps": 20, "rounds": 4},
    "when": {"images": 128},
    "seeds": {"images": 48_000},
    "shortcuts": {"images": 48_000},
}
"""The settings of each table that are numbers, and what they are by default."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    tables = parser.add_subparsers(dest="table", required=True)
    for name in TABLES:
        table = tables.add_parser(name)
        if name in ("seeds", "shortcuts"):
            table.add_argument("--runs", type=Path, default=RUNS, help=f"default {RUNS}")
        else:
            table.add_argument("--bundle", type=Path, default=BUNDLES / USUAL)
        for setting, default in NUMBERS.get(name, {}).items():
            table.add_argument(f"--{setting}", type=int, default=default, help=f"default {default}")
        if name in ("when", "stability"):
            table.add_argument("--data", type=Path, help="the data set's directory, where it has one")
        if name == "shortcuts":
            most = len(shortcuts.PAIRS)
            table.add_argument(
                "--models",
                type=int,
                choices=range(1, most + 1),
                default=most,
                help=f"default {most}",
            )
            table.add_argument("--init-from", type=Path, help="run whose averaged weights models begin at")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
