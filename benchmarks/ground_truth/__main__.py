"""Are the answers about cartoon faces right? Their truth is known, so every table here is held against it.

    python -m benchmarks.ground_truth where      [--bundle DIRECTORY] [--faces 100]
    python -m benchmarks.ground_truth edits      [--bundle DIRECTORY] [--faces 32] [--steps 20] [--rounds 4]
    python -m benchmarks.ground_truth when       [--bundle DIRECTORY] [--images 128] [--data DIRECTORY]
    python -m benchmarks.ground_truth stability  [--bundle DIRECTORY] [--data DIRECTORY]
    python -m benchmarks.ground_truth seeds      [--images 48000]
    python -m benchmarks.ground_truth shortcuts  [--images 48000] [--models 0 1 2 3]

`when` and `stability` (against noise) need no truth and take any bundle; the data set is the one that it
was trained on, and --data its directory. Each prints its table, and keeps it as
benchmarks/results/ground_truth/<table>.md (with the bundle's name where that is not cartoon-faces).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.ground_truth import edits, seeds, shortcuts, stability, when, where
from benchmarks.ground_truth.judge import load_judge
from benchmarks.ground_truth.small_models import SIZE, small_config
from benchmarks.ground_truth.subject import Subject
from benchmarks.machine import describe
from training.data import Dataset, load_dataset
from training.remeasure import load_bundle_weights

BUNDLES = Path(__file__).parents[2] / "bundles"
RESULTS = Path(__file__).parents[1] / "results" / "ground_truth"
NUM_NOISY = 1000


def main() -> int:
    """Measure, print and keep one table."""
    options = _parser().parse_args()
    title, lines = {
        "where": _where,
        "edits": _edits,
        "when": _when,
        "stability": _stability,
        "seeds": _seeds,
        "shortcuts": _shortcuts,
    }[options.table](options)
    command = f"python -m benchmarks.ground_truth {options.table}" + _arguments(options)
    text = "\n".join([f"# {title}", "", f"{describe()}.", f"Command: `{command}`", "", *lines]) + "\n"
    print(text)
    RESULTS.mkdir(parents=True, exist_ok=True)
    suffix = "" if options.bundle.name == "cartoon-faces" else f"-{options.bundle.name}"
    (RESULTS / f"{options.table}{suffix}.md").write_text(text)
    return 0


def _where(options: argparse.Namespace) -> tuple[str, list[str]]:
    subject = Subject(options.bundle)
    return f"Where: {_named(subject)}", where.table_of(where.measure(subject, options.faces))


def _edits(options: argparse.Namespace) -> tuple[str, list[str]]:
    subject = Subject(options.bundle)
    judge = load_judge(subject.bundle.config.image.height)
    measurement = edits.measure(
        subject, judge, num_faces=options.faces, steps=options.steps, rounds=options.rounds
    )
    return f"Edits: {_named(subject)}", edits.table_of(measurement, judge)


def _when(options: argparse.Namespace) -> tuple[str, list[str]]:
    subject = Subject(options.bundle)
    s, _ = subject.encode(_test_split(subject, options.data).pixels[: options.images])
    patronus = load_bundle_weights(subject.bundle)
    order = when.measure(patronus, subject.attributes, subject.statistics, s)
    return f"When: {_named(subject)}", when.table_of(order)


def _stability(options: argparse.Namespace) -> tuple[str, list[str]]:
    subject = Subject(options.bundle)
    images = _test_split(subject, options.data).pixels[:NUM_NOISY]
    return f"Stability: {_named(subject)}", stability.noise_lines(stability.measure(subject, images))


def _seeds(options: argparse.Namespace) -> tuple[str, list[str]]:
    runs = [seeds.measure(small_config("cartoon-faces", num_images=options.images, seed=i)) for i in (0, 1)]
    return "Two training runs of 32x32 cartoon faces, seeds 0 and 1", seeds.table_of(*runs)


def _shortcuts(options: argparse.Namespace) -> tuple[str, list[str]]:
    judge = load_judge(SIZE)
    pairs = shortcuts.measure(judge, num_images=options.images, models=options.models)
    return "Shortcuts: four models of 32x32 cartoon faces", shortcuts.table_of(pairs)


def _named(subject: Subject) -> str:
    return f"{subject.bundle.name} {subject.bundle.digest[:12]}"


def _test_split(subject: Subject, data: Path | None) -> Dataset:
    name = str(subject.bundle.provenance["dataset"])
    return load_dataset(name, data, "test", subject.bundle.config.image)


def _arguments(options: argparse.Namespace) -> str:
    """What was asked for, as it is typed; places of data are not kept."""
    parts = []
    for name, value in vars(options).items():
        if name == "table" or value is None:
            continue
        if name == "data":
            parts.append("--data DIRECTORY")
        elif name == "bundle":
            parts.append(f"--bundle bundles/{value.name}")
        else:
            shown = " ".join(map(str, value)) if isinstance(value, list) else value
            parts.append(f"--{name} {shown}")
    return "".join(f" {part}" for part in parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    tables = parser.add_subparsers(dest="table", required=True)
    for name, settings in {
        "where": {"faces": 100},
        "edits": {"faces": 32, "steps": 20, "rounds": 4},
        "when": {"images": 128},
        "stability": {},
        "seeds": {"images": 48_000},
        "shortcuts": {"images": 48_000},
    }.items():
        table = tables.add_parser(name)
        table.add_argument("--bundle", type=Path, default=BUNDLES / "cartoon-faces")
        for setting, default in settings.items():
            table.add_argument(f"--{setting}", type=int, default=default)
        if name in ("when", "stability"):
            table.add_argument("--data", type=Path, help="the data set's directory, where it has one")
        if name == "shortcuts":
            table.add_argument("--models", type=int, nargs="+", default=[0, 1, 2, 3])
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
