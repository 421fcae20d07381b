"""How many rows a denoise step is best given, found out once for each bundle and device.

More rows in a step serve more people, until the device is busy: from there on a larger batch makes
everybody in it wait longer and serves nobody faster. The limit is the smallest batch size that does at
least 95% of the rows per second of the best one.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from service.engine.runner import Runner, StepInputs

log = logging.getLogger(__name__)

GOOD_ENOUGH = 0.95
"""Of the best throughput."""
REPEATS = 3
"""Calls of each size; the fastest counts."""
AGREE = 2
"""Limits agree that differ by this factor at most: sizes next to each other serve about as many."""


def batch_limit(
    runner: Runner,
    bundle_digest: str,
    limits: BatchLimits,
    *,
    num_threads: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """The limit that is known for this bundle on this device, or else measured now, twice.

    It is kept where both agree. Where they do not, something else had the device, or its machine: the larger
    one, which costs throughput the least, then holds until the next start. `num_threads`: that the runner was
    given; 0: one for each core.
    """
    cores = num_threads or os.cpu_count()
    key = f"{bundle_digest} on {runner.backend}, {cores} cores, up to {runner.max_batch}"
    known = limits.get(key)
    if known is not None and 1 <= known <= runner.max_batch:
        return known
    smaller, larger = sorted(measure_batch_limit(runner, clock=clock) for _ in range(2))
    if larger <= AGREE * smaller:
        limits.keep(key, larger)
    else:
        log.warning(
            "a batch limit of %d and of %d rows was measured: is the machine busy? "
            "%d is used now, and measured again at the next start",
            smaller,
            larger,
            larger,
        )
    return larger


def measure_batch_limit(
    runner: Runner, *, budget_s: float = 1.0, clock: Callable[[], float] = time.perf_counter
) -> int:
    """The smallest size with 95% of the best throughput, of those that can be measured in `budget_s`.

    The runner is warm. Small sizes come first; where the budget ends before the largest, the device was
    busy long before.
    """
    config = runner.config
    started_at = clock()
    seconds: dict[int, float] = {}
    for size in _sizes(runner):
        inputs = StepInputs.blank(size, config.image.shape, config.num_prototypes)
        for _ in range(REPEATS):
            expected_s = seconds.get(size) or max(
                (s * size / known for known, s in seconds.items()), default=0.0
            )
            if seconds and clock() - started_at + expected_s > budget_s:
                break
            before = clock()
            runner.denoise_step(inputs)
            seconds[size] = min(clock() - before, seconds.get(size, np.inf))
    rates = {size: size / max(s, 1e-9) for size, s in seconds.items()}
    limit = min(size for size, rate in rates.items() if rate >= GOOD_ENOUGH * max(rates.values()))
    log.info("steps of up to %d rows; rows per second: %s", limit, {n: round(r) for n, r in rates.items()})
    return limit


class BatchLimits:
    """A JSON file of limits. One that cannot be read or written is as good as none."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: str) -> int | None:
        value = self._read().get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def keep(self, key: str, rows: int) -> None:
        mine = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            mine.write_text(json.dumps(self._read() | {key: rows}, indent=1))
            mine.replace(self._path)
        except OSError as error:
            log.warning("the batch limit is not kept: %s", error)

    def _read(self) -> dict[str, object]:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _sizes(runner: Runner) -> list[int]:
    """The runner's batch sizes, the smallest first."""
    sizes = [runner.bucket(1)]
    while sizes[-1] < runner.max_batch:
        sizes.append(runner.bucket(sizes[-1] + 1))
    return sizes
