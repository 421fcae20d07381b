"""What the engine tells whoever counts and times it."""

from __future__ import annotations

from typing import Protocol


class EngineObserver(Protocol):
    """Called from the engine's thread; must return quickly and not raise."""

    def step_started(self, rows: int, bucket: int) -> None:
        """A denoise step over `rows` rows begins; `bucket` rows are computed, padding included."""
        ...

    def step_finished(self, rows: int, wasted: int) -> None:
        """It ended; `wasted` of its rows belong to somebody who has left."""
        ...

    def occupancy(self, running: int, waiting: int, active_samples: int) -> None:
        """Jobs that have rows, jobs that have none yet, and rows in use."""
        ...

    def job_finished(self, queue_s: float, inference_s: float) -> None:
        """A denoise job got its result: seconds it waited for its first row, and ran after that."""
        ...

    def ran_out_of_memory(self, rows: int) -> None:
        """A step over `rows` rows did not fit and is retried with fewer."""
        ...

    def preempted(self, rows: int) -> None:
        """`rows` samples gave their rows to more urgent ones; they go on later where they stopped."""
        ...


class SilentObserver:
    """Counts nothing."""

    def step_started(self, rows: int, bucket: int) -> None: ...

    def step_finished(self, rows: int, wasted: int) -> None: ...

    def occupancy(self, running: int, waiting: int, active_samples: int) -> None: ...

    def job_finished(self, queue_s: float, inference_s: float) -> None: ...

    def ran_out_of_memory(self, rows: int) -> None: ...

    def preempted(self, rows: int) -> None: ...
