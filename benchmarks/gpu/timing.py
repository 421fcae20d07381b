"""How long something takes on a device, in several windows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

WINDOWS = 5
WINDOW_S = 0.15
MAX_REPEATS = 500


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one repetition, one figure for each window."""

    windows_ms: tuple[float, ...]

    @property
    def ms(self) -> float:
        return statistics.median(self.windows_ms)

    @property
    def spread(self) -> float:
        """Of the windows: (largest - smallest) / median."""
        return (max(self.windows_ms) - min(self.windows_ms)) / self.ms


def time_on_device(
    run: Callable[[], object], device: torch.device, *, windows: int = WINDOWS, window_s: float = WINDOW_S
) -> Timing:
    """Of work that `run` queues: between two events of the device, many repetitions in a row.

    On a CPU, where nothing is queued, by the clock.
    """
    if device.type != "cuda":
        return time_by_clock(run, device, windows=windows, window_s=window_s)
    repeats = _repeats(run, device, window_s)
    found = []
    for _ in range(windows):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        for _ in range(repeats):
            run()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) / repeats)
    return Timing(tuple(found))


def time_by_clock(
    run: Callable[[], object], device: torch.device, *, windows: int = WINDOWS, window_s: float = WINDOW_S
) -> Timing:
    """As a caller sees it: by the clock of this process, the device idle before and after."""
    repeats = _repeats(run, device, window_s)
    found = []
    for _ in range(windows):
        started_at = time.perf_counter()
        for _ in range(repeats):
            run()
        synchronize(device)
        found.append(1e3 * (time.perf_counter() - started_at) / repeats)
    return Timing(tuple(found))


def synchronize(device: torch.device) -> None:
    """Wait for what was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _repeats(run: Callable[[], object], device: torch.device, window_s: float) -> int:
    """How many fill a window, after two that warm up."""
    run()
    run()
    synchronize(device)
    started_at = time.perf_counter()
    run()
    synchronize(device)
    once_s = time.perf_counter() - started_at
    return max(1, min(MAX_REPEATS, round(window_s / max(once_s, 1e-6))))
