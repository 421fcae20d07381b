"""What a container's limit on CPU time is worth in cores.

A container sees all cores of its machine, and libraries start a thread for each. Where only some of their
time may be used, so many threads use it up early in each period, and then all of them stand still.
"""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
FIRST_VERSION = ("cpu.cfs_quota_us", "cpu.cfs_period_us")


def cores_of_quota(cgroup: Path = CGROUP, *, num_cores: int | None = None) -> int:
    """Whole cores, 1 at least; 0 where nothing limits them to fewer than the machine has (`num_cores`)."""
    quota = _second_version(cgroup) or _first_version(cgroup)
    if quota is None or quota >= (num_cores or os.cpu_count() or 1):
        return 0
    return max(1, int(quota))


def _second_version(cgroup: Path) -> float | None:
    """`QUOTA PERIOD`, the former `max` where there is none."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _first_version(cgroup: Path) -> float | None:
    """A file for each of the two; a negative quota is none."""
    try:
        quota, period = (int((cgroup / "cpu" / name).read_text()) for name in FIRST_VERSION)
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
