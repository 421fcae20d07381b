"""Who keeps the times of single jobs, for those who want to see where a request's time went."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from service.engine.jobs import DenoiseJob, EncodeJob


class JobRecord(Protocol):
    """One job's life. Called from the engine's thread; must return quickly and not raise."""

    def started(self) -> None:
        """The job gets its first row, or its first image is about to be encoded."""
        ...

    def resolved(self) -> None:
        """Its ticket has a result or an error."""
        ...


class JobRecorder(Protocol):
    """Makes the records of the jobs of one core."""

    def record(self, job: DenoiseJob | EncodeJob) -> AbstractContextManager[JobRecord | None]:
        """Entered by who submits a job, and left, with the error if there is one, when the waiting ends.

        None is a job that nobody wants to know about. What the engine's thread does with a job that was
        given up may reach its record later.
        """
        ...
