"""One call of a script: its options, its device, its budget, and a report that is kept whatever happens."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from benchmarks.gpu.budget import Budget
from benchmarks.gpu.machine import environment
from benchmarks.gpu.report import Report

RESULTS = Path(__file__).parents[1] / "results"
BUDGET_S = 540.0

T = TypeVar("T", str, int)


@dataclass(frozen=True)
class Call:
    """What a measurement is given. A rehearsal runs at tiny sizes on a CPU and claims nothing."""

    device: torch.device
    budget: Budget
    rehearsal: bool
    report: Report
    out: Path
    stem: str = "call"

    def save(self) -> None:
        """Keep what there is so far: who is ended for taking too long has not measured in vain."""
        self.report.write(self.out, self.stem)

    def allows(self, seconds: float, what: str) -> bool:
        """Whether there is time for it; notes what is left out."""
        if self.budget.allows(seconds):
            return True
        self.report.skip(what, f"the budget had {max(0.0, self.budget.left_s):.0f} s left")
        return False

    def chosen(self, given: str | None, *, rehearsed: Sequence[T], of: Sequence[T]) -> list[T]:
        """What an option's comma-separated text names; without it all, or what a rehearsal does of it."""
        if given:
            return [type(of[0])(part) for part in given.split(",")]
        return list(rehearsed if self.rehearsal else of)

    def has_packages(self, what: str, names: Sequence[str]) -> bool:
        """Whether the packages that a section needs are installed; notes which are missing."""
        missing = [name for name in names if importlib.util.find_spec(name) is None]
        if missing:
            self.report.skip(what, f"these packages are not installed: {', '.join(missing)}")
        return not missing


def option_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every script has."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="directory of the results (default: benchmarks/results/gpu)")
    parser.add_argument(
        "--budget-s",
        type=float,
        default=BUDGET_S,
        help=f"begin nothing that would end later (default: {BUDGET_S:g})",
    )
    parser.add_argument(
        "--rehearse", action="store_true", help="tiny sizes on the CPU, to see that the script runs"
    )
    return parser


def carry_out(
    measure: Callable[[Call, argparse.Namespace], None],
    parser: argparse.ArgumentParser,
    *,
    stem: str,
    title: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """Measure, keep STEM.md and STEM.json, print the table; gives the exit status.

    The report is written too where the measurement fails, which is then one of its checks. Exits with 2
    where there is no GPU and this is no rehearsal, or a rehearsal would write beside real results.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    if not options.rehearse and not torch.cuda.is_available():
        parser.error(f"torch {torch.__version__} finds no GPU here; --rehearse runs tiny sizes on the CPU")
    out: Path = options.out or (
        Path(tempfile.mkdtemp(prefix="rehearsal-")) if options.rehearse else RESULTS / "gpu"
    )
    if options.rehearse and out.resolve().is_relative_to(RESULTS):
        parser.error(f"a rehearsal claims nothing: it does not write to {RESULTS}")
    device = torch.device("cpu") if options.rehearse else torch.device("cuda", 0)
    command = " ".join(["python -m", f"benchmarks.gpu.{stem}", *arguments])
    report = Report(title, command, environment(device), rehearsal=options.rehearse)
    call = Call(device, Budget(options.budget_s), options.rehearse, report, out, stem)
    ended = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception: the report is kept
    try:
        measure(call, options)
    except BaseException as error:
        report.check("the measurement came to its end", False, f"{type(error).__name__}: {error}"[:500])
        raise
    finally:
        signal.signal(signal.SIGTERM, ended)
        report.figure("environment_at_the_end", **environment(device))  # clocks and heat under load
        call.save()
        print(report.markdown())
        print(f"kept as {out / stem}.md and .json", flush=True)
    return report.exit_status
