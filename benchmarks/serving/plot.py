"""Latency and goodput against load, one line for each server."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from benchmarks.serving.report import BACKENDS, plot_name
from benchmarks.serving.result import Result
from benchmarks.serving.servers import SERVERS
from benchmarks.serving.workloads import WORKLOADS

matplotlib.use("agg")

COLOURS = {
    "ours": "#c1121f",
    "litserve": "#6a4c93",
    "bentoml": "#1982c4",
    "ray": "#52a447",
    "mosec": "#e59500",
}


def draw(result: Result, directory: Path) -> None:
    """Medians of p50 and p99 on a logarithmic scale, and of goodput beside what was asked for."""
    from matplotlib import pyplot  # after the backend was chosen

    figure, (latency, goodput) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    loads = result.loads
    for server in result.servers:
        given = [load for load in loads if result.of(server, load)]
        style = {"color": COLOURS[server], "linewidth": 2.4 if server == "ours" else 1.4}
        p99 = [1e3 * result.median(server, load, lambda s: s.p99_s) for load in given]
        p50 = [1e3 * result.median(server, load, lambda s: s.p50_s) for load in given]
        good = [result.median(server, load, lambda s: s.goodput) for load in given]
        latency.plot(given, p99, marker="o", label=SERVERS[server].title, **style)
        latency.plot(given, p50, linestyle=":", **style)
        goodput.plot(given, good, marker="o", **style)
    asked = [load * result.best_capacity for load in loads]
    goodput.plot(loads, asked, color="0.6", linestyle="--", label="asked for")
    latency.set(yscale="log", xlabel="load, of the best capacity", ylabel="latency, ms (p99; dotted: p50)")
    goodput.set(xlabel="load, of the best capacity", ylabel="good answers per second", ylim=(0, None))
    for axes in (latency, goodput):
        axes.grid(alpha=0.25)
    latency.legend(frameon=False)
    goodput.legend(frameon=False)
    figure.suptitle(f"{WORKLOADS[result.work].title}: {BACKENDS[result.backend]}", fontsize=11)
    figure.savefig(directory / plot_name(result), dpi=110)
    pyplot.close(figure)
