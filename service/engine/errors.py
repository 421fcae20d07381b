"""Why a runner cannot be opened, and why a job did not get its result.

HTTP statuses for the latter are in `service.problems`.
"""

from __future__ import annotations


class DeviceError(Exception):
    """The device asked for is not there."""


class EngineError(Exception):
    """Any reason for which the engine gives no result."""


class QueueFullError(EngineError):
    """As many samples wait as the engine is allowed to keep."""


class JobTooLargeError(EngineError):
    """A job has more samples than the queue could ever hold."""


class DeadlineExceededError(EngineError):
    """The job's deadline passed before it was done, or must pass before it can be done."""


class JobCancelledError(EngineError):
    """Whoever asked for the job has left."""


class EngineStoppedError(EngineError):
    """The engine is draining, stopped or dead and takes no more work."""


class EngineHangsError(EngineStoppedError):
    """A step does not come to its end; work is taken again when it does."""


class StepFailedError(EngineError):
    """The network raised while it ran this job's samples."""


class NonFiniteOutputError(EngineError):
    """The network gave NaN or infinity for this job's samples."""


class OutOfMemoryError(EngineError):
    """A call needed more device memory than there is; raised by runners, answered by a smaller batch."""
