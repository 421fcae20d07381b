"""Draw docs/metrics.png: what Prometheus saw of the shipped service under load for a minute.

    python docs/draw_metrics.py     # needs redis-server and prometheus

Clients of several kinds ask all the time; Redis is killed and started again on the way.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.monitoring.dashboard import panels
from benchmarks.monitoring.prometheus_process import Series
from benchmarks.monitoring.stage import stage

PATH = Path(__file__).parent / "metrics.png"
BEFORE_S, AFTER_S = 25.0, 35.0
SHOWN = {  # panels of the dashboard, and the unit to write beside them
    "Requests by outcome": "requests/s",
    "p50 and p99 by endpoint": "s",
    "Batch size": "rows in a call",
    "Time of a step by batch bucket": "s",
    "Look-ups": "look-ups/s",
    "Faults of the cache": "faults/s",
}


Line = tuple[str, Series]
"""With its name."""


async def observe(directory: Path) -> dict[str, list[Line]]:
    """Each shown panel's lines over a run."""
    async with stage(directory) as running:
        started_at = time.time()
        await asyncio.sleep(BEFORE_S)
        await running.break_redis()
        await asyncio.sleep(AFTER_S)
        found: dict[str, list[Line]] = {title: [] for title in SHOWN}
        for panel in panels():
            if panel.title in SHOWN:
                lines = await running.prometheus.query_range(
                    panel.expression, start=started_at, end=time.time()
                )
                found[panel.title] += [(panel.name_of(series.labels), series) for series in lines]
        return found


def draw(found: dict[str, list[Line]], path: Path) -> None:
    figure, axes = plt.subplots(2, 3, figsize=(11, 5), dpi=80, layout="constrained")
    first = min(series.points[0][0] for lines in found.values() for _, series in lines)
    last = max(series.points[-1][0] for lines in found.values() for _, series in lines)
    for axis, (title, lines) in zip(axes.flat, found.items(), strict=True):
        for name, series in sorted(lines, key=lambda line: line[0]):
            times, values = zip(*series.points, strict=True)
            axis.plot([at - first for at in times], values, linewidth=1.2, label=name)
        axis.set_title(title, fontsize=9)
        axis.set_ylabel(SHOWN[title], fontsize=8)
        axis.set_ylim(bottom=0)
        axis.set_xlim(0, (last - first) * 1.35)  # beside the lines there is the legend
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=6, loc="upper right")
    figure.supxlabel("seconds", fontsize=8)
    figure.savefig(path, pil_kwargs={"optimize": True})


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(observe(Path(directory)))
    draw(found, PATH)
    print(PATH)


if __name__ == "__main__":
    main()
