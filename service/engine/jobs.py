"""Work for the engine, its results, and the ticket that is resolved exactly once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from model.samplers import SamplerTable
from service.engine.errors import EngineError
from service.engine.job_record import JobRecord

Float32 = npt.NDArray[np.float32]

R = TypeVar("R")


class Network(StrEnum):
    """What a job's samples are: images of the denoiser, or activation vectors of the prior."""

    DENOISER = "denoiser"
    PRIOR = "prior"


class Priority(StrEnum):
    """How long a job may take, compared with running alone; see `service.engine.urgency`."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


@dataclass(eq=False)
class Admission:
    """Whether a request's work was taken: then none of its further jobs is refused for a full queue."""

    is_taken: bool = False


OnStep = Callable[[int, int, Float32], None]
"""Told of a sample (its index in the job), the number of its steps that are done, and x_0_hat (C, H, W)."""


@dataclass(frozen=True, eq=False)
class DenoiseJob:
    """Take n samples through all steps of one table, each under its own activations.

    x: (n, C, H, W) where they start; activations: (n, m), or x: (n, m), activations: (n, 0) for the
    prior; noise_seeds: n integers from which each sample's fresh noise is drawn; deadline: in the
    engine's clock, seconds. Jobs of one request share their `admission`. `on_step` is called from the
    engine's thread, which it must not hold up, after each step of each sample; its x_0_hat is a copy.
    memory: like x, what the first step remembers, zeros where it is None (only a table that continues
    another one reads it there, such as `bdia_regeneration`).
    """

    x: Float32
    activations: Float32
    table: SamplerTable
    noise_seeds: tuple[int, ...]
    deadline: float = math.inf
    admission: Admission = field(default_factory=Admission)
    network: Network = Network.DENOISER
    priority: Priority = Priority.NORMAL
    on_step: OnStep | None = None
    memory: Float32 | None = None

    def __post_init__(self) -> None:
        counts = {len(self.x), len(self.activations), len(self.noise_seeds)}
        if len(counts) != 1 or 0 in counts or len(self.table) == 0:
            raise ValueError(
                f"a job needs samples and steps: {len(self.x)} starts, {len(self.activations)} activations, "
                f"{len(self.noise_seeds)} seeds, {len(self.table)} steps"
            )
        if self.memory is not None and self.memory.shape != self.x.shape:
            raise ValueError(f"memory must have the shape of x, {self.x.shape}, not {self.memory.shape}")

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class EncodeJob:
    """Encode n images x_0 (n, C, H, W); `deadline` and `admission` as in DenoiseJob."""

    x_0: Float32
    deadline: float = math.inf
    admission: Admission = field(default_factory=Admission)

    def __len__(self) -> int:
        return len(self.x_0)


@dataclass(frozen=True)
class Timing:
    """Seconds a job waited for its first row, and ran after that."""

    queue_s: float
    inference_s: float

    def __add__(self, other: Timing) -> Timing:
        return Timing(self.queue_s + other.queue_s, self.inference_s + other.inference_s)


@dataclass(frozen=True)
class DenoiseResult:
    """x and memory: (n, C, H, W), or (n, m) of the prior, after the last step."""

    x: Float32
    memory: Float32
    timing: Timing


@dataclass(frozen=True)
class EncodeResult:
    """activations (n, m), similarity_maps (n, m, h, w)."""

    activations: Float32
    similarity_maps: Float32
    timing: Timing


@dataclass(eq=False)
class Ticket(Generic[R]):
    """The claim on one job's outcome: a result or an EngineError, set once, told once.

    `abandoned` is set by the claimant when it leaves; what is computed afterwards is wasted.
    """

    on_resolved: Callable[[Ticket[R]], None]
    abandoned: bool = False
    record: JobRecord | None = None
    result: R | None = field(default=None, init=False)
    error: EngineError | None = field(default=None, init=False)

    @property
    def is_resolved(self) -> bool:
        return self.result is not None or self.error is not None

    def start(self) -> None:
        """Note that the job's turn has come, where such things are recorded."""
        if self.record is not None:
            self.record.started()

    def resolve(self, result: R) -> None:
        if not self.is_resolved:
            self.result = result
            self._tell()

    def fail(self, error: EngineError) -> None:
        if not self.is_resolved:
            self.error = error
            self._tell()

    def _tell(self) -> None:
        if self.record is not None:
            self.record.resolved()
        self.on_resolved(self)
