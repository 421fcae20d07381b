"""What was measured for one workload, kept as JSON so that tables and plots can be drawn again."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.open_loop import Summary


@dataclass(frozen=True)
class Window:
    """One server under one load, which is a share of the best capacity; rate: requests per second."""

    server: str
    load: float
    rate: float
    round: int
    summary: Summary


@dataclass
class Result:
    """capacity: requests/s by server; solo_s: by server and kind; settings, versions: by server."""

    work: str
    backend: str
    machine: str
    command: str
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    capacity: dict[str, float] = field(default_factory=dict)
    solo_s: dict[str, dict[str, float]] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)

    @property
    def best_capacity(self) -> float:
        return max(self.capacity.values())

    @property
    def best_solo_s(self) -> dict[str, float]:
        """By kind, the shortest of all servers."""
        kinds = next(iter(self.solo_s.values()))
        return {kind: min(times[kind] for times in self.solo_s.values()) for kind in kinds}

    @property
    def servers(self) -> list[str]:
        return list(self.capacity)

    @property
    def loads(self) -> list[float]:
        return sorted({window.load for window in self.windows})

    def of(self, server: str, load: float) -> list[Summary]:
        """The windows of one server under one load, in order."""
        return [w.summary for w in self.windows if w.server == server and w.load == load]

    def median(self, server: str, load: float, value: Callable[[Summary], float]) -> float:
        return statistics.median(value(summary) for summary in self.of(server, load))

    def scatter(self, server: str, load: float, value: Callable[[Summary], float]) -> float:
        """The farthest window from the median, as a share of the median."""
        values = [value(summary) for summary in self.of(server, load)]
        middle = statistics.median(values)
        farthest = max(abs(other - middle) for other in values)
        return farthest / middle if middle else float(farthest > 0.0)

    def save(self, directory: Path) -> None:
        path = directory / f"serving-{self.backend}-{self.work}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Result:
        values: dict[str, Any] = json.loads(path.read_text())
        windows = [Window(**{**w, "summary": Summary(**w["summary"])}) for w in values.pop("windows")]
        return cls(**values, windows=windows)

    @classmethod
    def all_in(cls, directory: Path) -> list[Result]:
        """The stand-in's before the bundle's."""
        found = [cls.load(path) for path in directory.glob("serving-*-*.json") if "overhead" not in path.name]
        return sorted(found, key=lambda result: (result.backend != "stand-in", result.work))
