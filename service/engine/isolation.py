"""Run a batch so that a failing item fails alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from service.engine.errors import EngineError, NonFiniteOutputError, OutOfMemoryError, StepFailedError

log = logging.getLogger(__name__)


@dataclass
class BatchFailures:
    """Positions that failed with what they raised, and the batch size that proved too large, if any.

    num_calls: how many calls it took to find out.
    """

    errors: dict[int, Exception] = field(default_factory=dict)
    out_of_memory_at: int | None = None
    num_calls: int = 1

    @property
    def any(self) -> bool:
        return bool(self.errors) or self.out_of_memory_at is not None


def run_isolated(run: Callable[[slice], None], count: int, limit: int) -> BatchFailures:
    """Call `run` on slices of 0 … count - 1, each at most `limit` long.

    A slice that raises is halved and tried again, until the items that fail stand alone; `run` must
    be repeatable. For one bad item among n this costs about 2 log2(n) more calls.
    """
    failures = BatchFailures(num_calls=0)
    pending = [slice(start, min(start + limit, count)) for start in range(0, count, limit)]
    while pending:
        part = pending.pop()
        size = part.stop - part.start
        failures.num_calls += 1
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


def failure_at(
    failures: BatchFailures, finite: npt.NDArray[np.bool_], positions: range
) -> EngineError | None:
    """What to tell whoever owns `positions` of a batch: the first one's failure, if any has one.

    finite: (B,), whether the network gave only finite values for a position.
    """
    for i in positions:
        error = failures.errors.get(i)
        if error is not None:
            log.error("the network failed for one sample", exc_info=error)
            if isinstance(error, OutOfMemoryError):
                return OutOfMemoryError("the device has no memory for even one sample")
            return StepFailedError(f"the network failed: {type(error).__name__}")
        if not finite[i]:
            return NonFiniteOutputError("the network gave a value that is not finite")
    return None
