"""Results as Markdown: a table for each workload, and the targets beside what was reached."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.open_loop import GOOD_WITHIN, Summary
from benchmarks.serving.engine_overhead import EngineOverhead
from benchmarks.serving.result import Result
from benchmarks.serving.servers import SERVERS
from benchmarks.serving.workloads import WORKLOADS

FILE = "serving.md"
STEADY = 0.1
"""Windows that are farther than this from their median are said to scatter."""
OURS = "ours"
CLOSE_LOADS = (0.8, 0.95)
BACKENDS = {
    "stand-in": "a stand-in step of 4 ms + 0.2 ms a row (encoding: 1 ms + 0.05 ms a row)",
    "bundle": "the shipped bundle on the CPU",
}


@dataclass(frozen=True)
class Column:
    """A figure of a window and how it is written."""

    title: str
    value: Callable[[Summary], float]
    write: Callable[[float], str]


COLUMNS = (
    Column("goodput, /s", lambda s: s.goodput, lambda v: f"{v:.1f}"),
    Column("good, %", lambda s: 100.0 * s.good, lambda v: f"{v:.0f}"),
    Column("p50, ms", lambda s: 1e3 * s.p50_s, lambda v: f"{v:.0f}"),
    Column("p95, ms", lambda s: 1e3 * s.p95_s, lambda v: f"{v:.0f}"),
    Column("p99, ms", lambda s: 1e3 * s.p99_s, lambda v: f"{v:.0f}"),
    Column("p99, solo times", lambda s: s.p99_slowdown, lambda v: f"{v:.1f}"),
    Column("fairness", lambda s: s.fairness, lambda v: f"{v:.2f}"),
    Column("rejected", lambda s: s.num_rejected, lambda v: f"{v:.0f}"),
    Column("errors", lambda s: s.num_errors, lambda v: f"{v:.0f}"),
)


def write_report(results: Sequence[Result], directory: Path) -> str:
    """All results there are, as one page; returns it and keeps it in the directory."""
    parts = ["# Serving beside other model servers", "", _method(), ""]
    standing_in = [result for result in results if result.backend == "stand-in"]
    overhead = EngineOverhead.load(directory)
    parts += [*_targets(standing_in, overhead), ""]
    for result in results:
        parts += [*_section(result), ""]
    if overhead is not None:
        parts += [*_overhead_section(overhead), ""]
    text = "\n".join(parts)
    (directory / FILE).write_text(text)
    return text


def _method() -> str:
    return (
        "Open-loop Poisson arrivals from one client on the same machine, the same for every server. "
        "Latencies count from when a request was due; one that the client gave up counts as an error, "
        "and with the time that it was given. Loads are shares of the best server's capacity in a closed "
        f"loop. Good: answered within {GOOD_WITHIN:g} times the shortest solo time of its kind on any "
        "server. Fairness: Jain's index over kinds of solo time / mean latency. Figures are medians over "
        "windows, turn about, one server running at a time; ± says how far the farthest window was, where "
        "that is more than 10%. Peers batch whole requests: at most 32 rows in a network call, and rows "
        "that are done make room for others of the batch."
    )


def _section(result: Result) -> list[str]:
    work = WORKLOADS[result.work]
    rounds = max(
        (len(result.of(server, load)) for server in result.servers for load in result.loads), default=0
    )
    lines = [
        f"## {work.title}: {BACKENDS[result.backend]}",
        "",
        f"{result.machine}. {rounds} windows. Command: `{result.command}` ({result.seconds / 60:.0f} min).",
        "",
        "| server | version | settings | capacity, requests/s | solo, ms |",
        "|---|---|---|---|---|",
    ]
    for server in result.servers:
        solo = ", ".join(f"{kind}: {1e3 * s:.1f}" for kind, s in result.solo_s[server].items())
        lines.append(
            f"| {SERVERS[server].title} | {result.versions[server]} | {result.settings[server]} "
            f"| {result.capacity[server]:.1f} | {solo} |"
        )
    titles = [column.title for column in COLUMNS]
    lines += [
        "",
        f"![Latency against load]({plot_name(result)})",
        "",
        f"| load | server | {' | '.join(titles)} |",
        f"|---|---|{'---|' * len(titles)}",
    ]
    for load in result.loads:
        rate = next(window.rate for window in result.windows if window.load == load)
        for server in result.servers:
            if not result.of(server, load):
                continue
            cells = [_cell(result, server, load, column) for column in COLUMNS]
            lines.append(f"| {load:g} ({rate:.1f}/s) | {SERVERS[server].title} | {' | '.join(cells)} |")
    return lines


def _cell(result: Result, server: str, load: float, column: Column) -> str:
    text = column.write(result.median(server, load, column.value))
    scatter = result.scatter(server, load, column.value)
    counted = column.title not in ("rejected", "errors")
    return f"{text} ±{100 * scatter:.0f}%" if counted and scatter > STEADY else text


def plot_name(result: Result) -> str:
    return f"serving-{result.backend}-{result.work}.png"


def _targets(results: Sequence[Result], overhead: EngineOverhead | None) -> list[str]:
    """Each target with the figure reached, as far as it was measured."""
    found = {result.work: result for result in results}
    rows: list[tuple[str, str, bool]] = []
    mixed, encode = found.get("mixed"), found.get("encode")
    if mixed is not None and _has_peers(mixed):
        for load in (load for load in CLOSE_LOADS if load in mixed.loads):
            ours, peer, name = _against_best(mixed, load, lambda s: s.goodput, max)
            rows.append(
                (
                    f"mixed at {load:g}: goodput at least 2 times the best peer",
                    f"{_ratio(ours, peer)} times {name} ({ours:.1f}/s, {peer:.1f}/s)",
                    ours >= 2.0 * peer,
                )
            )
        if CLOSE_LOADS[0] in mixed.loads:
            load = CLOSE_LOADS[0]
            ours, peer, name = _against_best(mixed, load, lambda s: s.p99_s, min)
            rows.append(
                (
                    f"mixed at {load:g}: p99 at most a third of the best peer",
                    f"{ours / peer:.2f} of {name} ({1e3 * ours:.0f} ms, {1e3 * peer:.0f} ms)",
                    ours <= peer / 3.0,
                )
            )
            ours, peer, name = _against_best(mixed, load, lambda s: s.p99_slowdown, min)
            rows.append(
                (
                    f"mixed at {load:g}: the same of latency / solo time of the kind",
                    f"{ours / peer:.2f} of {name} ({ours:.1f}, {peer:.1f})",
                    ours <= peer / 3.0,
                )
            )
            fairness = mixed.median(OURS, load, lambda s: s.fairness)
            rows.append((f"mixed at {load:g}: fairness at least 0.9", f"{fairness:.2f}", fairness >= 0.9))
    if encode is not None and _has_peers(encode):
        for load in encode.loads:
            ours, peer, name = _against_best(encode, load, lambda s: s.goodput, max)
            late, peer_late, late_name = _against_best(encode, load, lambda s: s.p99_s, min)
            rows.append(
                (
                    f"encode only at {load:g}: no worse than the best peer",
                    f"goodput {_ratio(ours, peer)} times {name}; p99 {1e3 * late:.0f} ms, "
                    f"{late_name} {1e3 * peer_late:.0f} ms",
                    ours > 0.0 and ours >= (1.0 - 0.05) * peer,
                )
            )
    if overhead is not None:
        rows.append(
            (
                "engine overhead at most 3% of step time at a full batch",
                f"{100 * (1 - overhead.ratio):.1f}%",
                overhead.ratio >= 0.97,
            )
        )
    lines = ["| target, with the stand-in | reached | met |", "|---|---|---|"]
    return [
        *lines,
        *(f"| {target} | {reached} | {'yes' if met else 'no'} |" for target, reached, met in rows),
    ]


def _has_peers(result: Result) -> bool:
    return OURS in result.servers and len(result.servers) > 1


def _against_best(
    result: Result, load: float, value: Callable[[Summary], float], best: Callable[..., float]
) -> tuple[float, float, str]:
    """Ours, the best peer's, and that peer's name."""
    peers = {
        server: result.median(server, load, value)
        for server in result.servers
        if server != OURS and result.of(server, load)
    }
    figure = best(peers.values())
    name = next(server for server, other in peers.items() if other == figure)
    return result.median(OURS, load, value), figure, SERVERS[name].title


def _ratio(ours: float, peer: float) -> str:
    return f"{ours / peer:.2f}" if peer else ("∞" if ours else "0 of 0,")


def _overhead_section(overhead: EngineOverhead) -> list[str]:
    def row(name: str, rates: Sequence[float]) -> str:
        return f"| {name} | {statistics.median(rates):.0f} | {', '.join(f'{rate:.0f}' for rate in rates)} |"

    return [
        "## Engine overhead at a full batch",
        "",
        f"32 rows of the stand-in step; {overhead.machine}. Command: `{overhead.command}`.",
        "",
        "| | row-steps/s, median | windows |",
        "|---|---|---|",
        row("served over HTTP", overhead.served),
        row("the runner by itself", overhead.alone),
        "",
        f"Served / by itself: {overhead.ratio:.3f}.",
    ]
