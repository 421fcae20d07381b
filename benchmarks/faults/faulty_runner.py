"""A network that breaks on command, and the command comes in a request's activations."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Sequence

import numpy as np

from model.config import ModelConfig
from service.engine.errors import OutOfMemoryError
from service.engine.fake_runner import FakeRunner
from service.engine.runner import Float32, Runner, StepInputs, StepOutputs

STEP_S, ROW_S = 0.004, 0.0002
"""A small U-Net on a GPU: a step costs about the same for one row and for many."""
POISONED_PIXEL = 77
"""A picture whose every pixel is this makes the encoder raise."""


class Command(enum.Enum):
    """What entry 0 of a request's activations asks for. Values are exact in float32.

    poison: every call that holds the row raises. not_finite: the row's own output is NaN. The others are
    obeyed once, by the first call that holds the row and those after it, and entry 1 tells for how long:
    raises (at zero, one call does), out_of_memory (calls over entry 2 rows), hangs (one call).
    """

    POISON = 9.0
    NOT_FINITE = 9.03125
    RAISES = 9.0625
    OUT_OF_MEMORY = 9.09375
    HANGS = 9.125


SECONDS_SCALE = 8.0
ROWS_SCALE = 16.0
"""An activation goes up to 9.2: seconds and rows are given divided by these."""


def activations_of(
    command: Command, num_prototypes: int, *, seconds: float = 0.0, rows: int = 0, nonce: int = 0
) -> list[float]:
    """Activations (m,) that carry a command. One with another `nonce`, 0 … 1023, is another one."""
    entries = [command.value, seconds / SECONDS_SCALE, rows / ROWS_SCALE, nonce / 128]
    return entries + [0.5] * (num_prototypes - len(entries))


class StandIn(FakeRunner):
    """FakeRunner with a cheap encoder, that takes `step_s` + `row_s` n for a step of n rows."""

    def __init__(
        self, config: ModelConfig, *, max_batch: int, has_prior: bool, step_s: float, row_s: float
    ) -> None:
        super().__init__(config, max_batch=max_batch, has_prior=has_prior)
        self._step_s = step_s
        self._row_s = row_s

    @property
    def backend(self) -> str:
        return f"stand-in of {1000 * self._step_s:g} ms + {1000 * self._row_s:g} ms a row"

    def encode(self, x_0: Float32) -> tuple[Float32, Float32]:
        m, (height, width) = self.config.num_prototypes, self.config.grid_shape
        maps = np.stack([np.abs(np.resize(row, m * height * width)) for row in x_0.reshape(len(x_0), -1)])
        maps = maps.reshape(len(x_0), m, height, width)
        return maps.mean(axis=(2, 3)), maps

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        end = time.perf_counter() + (self._step_s + self._row_s * len(inputs) if self._step_s else 0.0)
        outputs = super().denoise_step(inputs)
        time.sleep(max(0.0, end - time.perf_counter()))
        return outputs


class FaultyRunner:
    """Another runner that obeys `Command`s."""

    def __init__(
        self,
        runner: Runner,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._runner = runner
        self._clock = clock
        self._sleep = sleep
        self._obeyed: set[tuple[float, ...]] = set()
        self._raises_until = 0.0
        self._rows_that_fit, self._short_until = runner.max_batch, 0.0

    @property
    def config(self) -> ModelConfig:
        return self._runner.config

    @property
    def backend(self) -> str:
        return f"faulty {self._runner.backend}"

    @property
    def max_batch(self) -> int:
        return self._runner.max_batch

    def bucket(self, rows: int) -> int:
        return self._runner.bucket(rows)

    def warm_up(self) -> None:
        self._runner.warm_up()

    def encode(self, x_0: Float32) -> tuple[Float32, Float32]:
        if (np.rint((x_0 + 1.0) * 127.5) == POISONED_PIXEL).all(axis=(1, 2, 3)).any():
            raise RuntimeError("a poisoned picture")
        return self._runner.encode(x_0)

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        commands = inputs.activations[:, 0]
        for row in np.flatnonzero(commands > Command.POISON.value):
            self._obey(tuple(float(number) for number in inputs.activations[row, :4]))
        if self._clock() < self._raises_until:
            raise RuntimeError("the device fails")
        if self._clock() < self._short_until and len(inputs) > self._rows_that_fit:
            raise OutOfMemoryError(f"no memory for {len(inputs)} rows")
        if (commands == Command.POISON.value).any():
            raise RuntimeError("a poisoned row")
        outputs = self._runner.denoise_step(inputs)
        outputs.x_next[commands == Command.NOT_FINITE.value] = np.nan
        return outputs

    @property
    def has_prior(self) -> bool:
        return self._runner.has_prior

    def prior_step(self, inputs: StepInputs) -> StepOutputs:
        return self._runner.prior_step(inputs)

    def _obey(self, numbers: Sequence[float]) -> None:
        """Begin what a command asks for, the first time that it is seen."""
        command, seconds, rows = numbers[0], numbers[1] * SECONDS_SCALE, round(numbers[2] * ROWS_SCALE)
        if tuple(numbers) in self._obeyed:
            return
        self._obeyed.add(tuple(numbers))
        if command == Command.RAISES.value:
            self._raises_until = self._clock() + seconds
            if not seconds:
                raise RuntimeError("the device fails once")
        elif command == Command.OUT_OF_MEMORY.value:
            self._rows_that_fit, self._short_until = rows, self._clock() + seconds
        elif command == Command.HANGS.value:
            self._sleep(seconds)
