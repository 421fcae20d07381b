"""What one call found: tables, self-checks and targets, as Markdown, and every raw figure as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REHEARSED = (
    "**A rehearsal:** tiny sizes, on whatever was at hand, to see that the script runs. No figure here says "
    "anything about a GPU."
)


@dataclass(frozen=True)
class Check:
    """Something that must hold, or the figures beside it are not to be believed."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Target:
    """A figure that was hoped for, and the one that was found."""

    name: str
    found: float
    bound: float
    unit: str
    at_least: bool

    @property
    def is_met(self) -> bool:
        return self.found >= self.bound if self.at_least else self.found <= self.bound

    def __str__(self) -> str:
        relation = "at least" if self.at_least else "at most"
        return f"{self.name}: {self.found:.4g} {self.unit}, {relation} {self.bound:g} {self.unit} wanted"


@dataclass(frozen=True)
class Table:
    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Report:
    """Collects what a script finds. A rehearsal judges no target, but its checks count."""

    def __init__(
        self, title: str, command: str, environment: Mapping[str, Any], *, rehearsal: bool = False
    ) -> None:
        self.title = title
        self.command = command
        self.environment = environment
        self.rehearsal = rehearsal
        self.tables: list[Table] = []
        self.checks: list[Check] = []
        self.targets: list[Target] = []
        self.not_measured: dict[str, str] = {}
        self.figures: dict[str, list[dict[str, Any]]] = {}

    @property
    def exit_status(self) -> int:
        """1 where a check failed or there was none; a target that is missed is a result like any other."""
        return 0 if self.checks and all(check.passed for check in self.checks) else 1

    def table(self, heading: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if rows:
            self.tables.append(Table(heading, columns, rows))

    def figure(self, group: str, /, **values: Any) -> None:
        """Keep a raw figure, with everything that it belongs to, for the JSON."""
        self.figures.setdefault(group, []).append(values)

    def check(self, name: str, passed: bool, detail: str = "") -> bool:
        """Note a self-check, and say so when it fails."""
        self.checks.append(Check(name, bool(passed), detail))
        if not passed:
            print(f"CHECK FAILED: {name}: {detail}", flush=True)
        return bool(passed)

    def target(self, name: str, found: float, bound: float, unit: str, *, at_least: bool) -> None:
        self.targets.append(Target(name, found, bound, unit, at_least))

    def skip(self, what: str, why: str) -> None:
        """Something was not measured."""
        self.not_measured[what] = why
        print(f"not measured: {what}: {why}", flush=True)

    def markdown(self) -> str:
        gpu = self.environment.get("gpu", self.environment["machine"])
        lines = [f"# {self.title}", ""]
        if self.rehearsal:
            lines += [REHEARSED, ""]
        lines += [f"{gpu}, torch {self.environment['torch']}. Command: `{self.command}`", ""]
        for table in self.tables:
            lines += [f"## {table.heading}", "", _row(table.columns), "|" + "---|" * len(table.columns)]
            lines += [*(_row(row) for row in table.rows), ""]
        lines += ["## Targets and checks", ""]
        lines += [f"- {self._verdict(target)}: {target}" for target in self.targets]
        failed = [check for check in self.checks if not check.passed]
        lines += [f"- {len(self.checks) - len(failed)} of {len(self.checks)} self-checks passed"]
        lines += [f"- FAILED: {check.name}: {check.detail}" for check in failed]
        lines += [f"- not measured: {what}: {why}" for what, why in self.not_measured.items()]
        lines += ["", "## Environment", "", "| | |", "|---|---|"]
        lines += [_row((name, str(value))) for name, value in self.environment.items()]
        return "\n".join(lines) + "\n"

    def write(self, directory: Path, stem: str) -> None:
        """STEM.md and STEM.json; each replaces an older one only when it is complete."""
        directory.mkdir(parents=True, exist_ok=True)
        values = {
            "title": self.title,
            "command": self.command,
            "rehearsal": self.rehearsal,
            "environment": dict(self.environment),
            "targets": [
                asdict(target) | {"met": None if self.rehearsal else target.is_met} for target in self.targets
            ],
            "checks": [asdict(check) for check in self.checks],
            "not_measured": self.not_measured,
            "figures": self.figures,
        }
        for suffix, text in ((".md", self.markdown()), (".json", json.dumps(values, indent=1) + "\n")):
            path = directory / (stem + suffix)
            partial = path.with_suffix(suffix + ".partial")
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)

    def _verdict(self, target: Target) -> str:
        if self.rehearsal:
            return "not judged"
        return "met" if target.is_met else "MISSED"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
