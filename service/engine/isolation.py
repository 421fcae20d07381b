"""Run a batch so that a failing item fails alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from service.engine.errors import OutOfMemoryError


@dataclass
class BatchFailures:
    """Positions that failed with what they raised, and the batch size that proved too large, if any."""

    errors: dict[int, Exception] = field(default_factory=dict)
    out_of_memory_at: int | None = None


def run_isolated(run: Callable[[slice], None], count: int, limit: int) -> BatchFailures:
    """Call `run` on slices of 0 … count - 1, each at most `limit` long.

    A slice that raises is halved and tried again, until the items that fail stand alone; `run` must
    be repeatable. For one bad item among n this costs about 2 log2(n) more calls.
    """
    failures = BatchFailures()
    pending = [slice(start, min(start + limit, count)) for start in range(0, count, limit)]
    while pending:
        part = pending.pop()
        size = part.stop - part.start
        try:
            run(part)
        except Exception as error:
            if isinstance(error, OutOfMemoryError):
                failures.out_of_memory_at = min(size, failures.out_of_memory_at or size)
            if size == 1:
                failures.errors[part.start] = error
            else:
                middle = part.start + size // 2
                pending += [slice(part.start, middle), slice(middle, part.stop)]
    return failures
