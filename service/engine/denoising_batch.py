"""The rows of the samples in flight, in arrays that are allocated once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from model.samplers import NUM_COEFFICIENTS, D, SamplerTable
from service.engine.runner import StepInputs, StepOutputs

Float32 = npt.NDArray[np.float32]


@dataclass(eq=False)
class Row:
    """One sample's progress through its table. `owner` is opaque here; `index` is its place in the job.

    While it has no place in a batch, `x` is where it starts or was paused, and `memory` what it remembers.
    `order`: of two rows the one with the smaller order is the more urgent.
    """

    owner: object
    index: int
    table: SamplerTable
    noise_seed: int
    activations: Float32
    x: Float32 | None
    memory: Float32 | None = None
    order: tuple[int, ...] = ()
    step: int = 0
    _rng: np.random.Generator | None = field(default=None, init=False)
    is_stochastic: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_stochastic = self.table.is_stochastic

    @property
    def is_done(self) -> bool:
        return self.step == len(self.table)

    @property
    def num_steps_left(self) -> int:
        return len(self.table) - self.step

    @property
    def timestep(self) -> int:
        return int(self.table.timesteps[self.step])

    @property
    def coefficients(self) -> npt.NDArray[np.float64]:
        """(8,) of the current step."""
        row: npt.NDArray[np.float64] = self.table.coefficients[self.step]
        return row

    def draw_noise(self, out: Float32) -> None:
        """Fill `out` with this sample's next noise: it depends on its own seed alone."""
        if self.coefficients[D] == 0.0:
            return
        if self._rng is None:
            self._rng = np.random.default_rng(self.noise_seed)
        self._rng.standard_normal(out=out, dtype=np.float32)


class DenoisingBatch:
    """Up to `capacity` rows, always packed at the front; row i of every array is `rows[i]`.

    `sample_shape` is (C, H, W) for images, (m,) for activation vectors; `num_conditions` is m or 0.
    """

    def __init__(self, sample_shape: tuple[int, ...], num_conditions: int, capacity: int) -> None:
        shape = (capacity, *sample_shape)
        self.rows: list[Row] = []
        self.capacity = capacity
        self._x_t = np.zeros(shape, np.float32)
        self._memory = np.zeros(shape, np.float32)
        self._noise = np.zeros(shape, np.float32)
        self._activations = np.zeros((capacity, num_conditions), np.float32)
        self._timesteps = np.zeros(capacity, np.int64)
        self._coefficients = np.zeros((capacity, NUM_COEFFICIENTS), np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def admit(self, row: Row) -> None:
        """Start or resume a sample in the next free row."""
        assert row.x is not None  # it has no place elsewhere
        i = len(self.rows)
        self.rows.append(row)
        self._x_t[i] = row.x
        self._memory[i] = 0.0 if row.memory is None else row.memory
        self._noise[i] = 0.0
        self._activations[i] = row.activations
        row.x = row.memory = None

    def pause(self, i: int) -> Row:
        """Free row i and return it, with all that it needs to be admitted again."""
        row = self.rows[i]
        row.x, row.memory = self._x_t[i].copy(), self._memory[i].copy()
        self.release({i})
        return row

    def inputs(self) -> StepInputs:
        """Views of everything the next step needs, for all rows in use."""
        count = len(self.rows)
        if count:
            self._timesteps[:count] = [row.timestep for row in self.rows]
            self._coefficients[:count] = [row.coefficients for row in self.rows]
        for i, row in enumerate(self.rows):
            if row.is_stochastic:
                row.draw_noise(self._noise[i])
        return StepInputs(
            self._x_t, self._timesteps, self._activations, self._memory, self._noise, self._coefficients
        ).rows(slice(count))

    def empty_outputs(self) -> StepOutputs:
        """Arrays for what a step gives for all rows there can be."""
        return StepOutputs(*(np.empty_like(self._x_t) for _ in range(3)))

    def advance(self, outputs: StepOutputs) -> None:
        """Take over what a step gave for all rows in use."""
        count = len(self.rows)
        self._x_t[:count] = outputs.x_next
        self._memory[:count] = outputs.memory_next
        for row in self.rows:
            row.step += 1

    def state(self, i: int) -> tuple[Float32, Float32]:
        """Views of row i's current x and memory."""
        return self._x_t[i], self._memory[i]

    def release(self, unwanted: set[int]) -> None:
        """Free rows by position; the last rows move into the gaps."""
        for i in sorted(unwanted, reverse=True):
            last = len(self.rows) - 1
            if i != last:
                self.rows[i] = self.rows[last]
                for array in (self._x_t, self._memory, self._noise, self._activations):
                    array[i] = array[last]
            self.rows.pop()
