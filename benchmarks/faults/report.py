"""The table of faults, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.faults.outcomes import Outcome
from benchmarks.faults.stage import Row

FORBIDDEN = (Outcome.HUNG, Outcome.LOST, Outcome.WRONG)
COLUMNS = (Outcome.OK, Outcome.REFUSED, Outcome.LEFT, Outcome.UNREACHABLE, Outcome.LATE, *FORBIDDEN)
MAX_DETAILS = 5


def is_clean(rows: Sequence[Row]) -> bool:
    """Whether no request hung, was lost or was answered wrongly."""
    return not any(row.finding.tally.count(outcome) for row in rows for outcome in FORBIDDEN)


def table_of(rows: Sequence[Row]) -> str:
    heads = ["fault", "sent", *COLUMNS, "back at baseline, s", "memory before → after, MiB"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        tally = row.finding.tally
        back = f"{row.back_s:.2f}" if math.isfinite(row.back_s) else "never"
        cells = [row.name, str(tally.sent), *(str(tally.count(outcome)) for outcome in COLUMNS)]
        cells += [back, f"{row.rss_before_mib:.0f} → {row.rss_after_mib:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def notes_of(rows: Sequence[Row]) -> str:
    """What else was seen, and the commonest reasons of what should not have been."""
    lines = []
    for row in rows:
        lines.append(f"- {row.name}: {row.finding.note}".rstrip(": "))
        details = row.finding.tally.details(*FORBIDDEN, Outcome.LATE)
        lines += [f"  - {count} x {detail}" for detail, count in details.most_common(MAX_DETAILS)]
    return "\n".join(lines)
