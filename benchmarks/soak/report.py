"""The tables of a soak, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from benchmarks.faults.outcomes import Outcome, Record, Tally
from benchmarks.soak.watch import Sample, memory_slope

PERIOD_S = 300.0
FORBIDDEN = (Outcome.HUNG, Outcome.LOST, Outcome.WRONG)
COLUMNS = (Outcome.OK, Outcome.LEFT, Outcome.REFUSED, Outcome.LATE, Outcome.UNREACHABLE, *FORBIDDEN)
MAX_DETAILS = 5


def is_clean(records: Sequence[Record]) -> bool:
    """Whether no request hung, was lost or was answered wrongly."""
    return not any(record.outcome in FORBIDDEN for record in records)


def periods_table(records: Sequence[Record], started_at: float) -> str:
    """A line for every five minutes: outcomes, and the latency of what was answered."""
    periods: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.sent_at):
        number = int((record.sent_at - started_at) / PERIOD_S)
        name = f"minute {number * PERIOD_S / 60:g} to {(number + 1) * PERIOD_S / 60:g}"
        periods.setdefault(name, []).append(record)
    return _table("time", periods)


def kinds_table(records: Sequence[Record]) -> str:
    """A line for every kind of request."""
    kinds: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.kind):
        kinds.setdefault(record.kind, []).append(record)
    return _table("request", kinds)


def memory_table(samples: Sequence[Sample], before: Sample, after: Sample) -> str:
    """Of the service's process: at the start, at the end with nothing left to do, and in between."""
    rss = [sample.resources.rss_mib for sample in samples]
    found = memory_slope(samples)
    first, last = before.resources, after.resources
    return "\n".join(
        [
            "| | at start | at end | largest | slope over the second half |",
            "|---|---|---|---|---|",
            f"| resident memory, MiB | {first.rss_mib:.0f} | {last.rss_mib:.0f} | {max(rss):.0f} | "
            f"{found.per_hour:+.1f} ± {found.error:.1f} MiB/h |",
            f"| threads | {first.num_threads} | {last.num_threads} | "
            f"{max(sample.resources.num_threads for sample in samples)} | |",
            f"| open files | {first.num_files} | {last.num_files} | "
            f"{max(sample.resources.num_files for sample in samples)} | |",
        ]
    )


def faults_list(records: Sequence[Record]) -> str:
    """Statuses, and the commonest reasons of what should not have been."""
    tally = Tally(records)
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(tally.statuses.items()))
    details: Counter[str] = tally.details(*FORBIDDEN, Outcome.LATE, Outcome.UNREACHABLE)
    lines = [f"- answers by status: {statuses}"]
    return "\n".join([*lines, *(f"- {count} x {text}" for text, count in details.most_common(MAX_DETAILS))])


def _table(head: str, groups: dict[str, list[Record]]) -> str:
    heads = [head, *COLUMNS, "p50, s", "p95, s", "p99, s"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, records in groups.items():
        tally = Tally(records)
        counts = [str(tally.count(outcome)) for outcome in COLUMNS]
        times = tally.ok_seconds or [np.nan]
        shown = [f"{np.percentile(times, percent):.3f}" for percent in (50, 95, 99)]
        lines.append(f"| {' | '.join([name, *counts, *shown])} |")
    return "\n".join(lines)
