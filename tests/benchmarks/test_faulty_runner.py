"""The network that breaks on command."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.faults.faulty_runner import POISONED_PIXEL, Command, FaultyRunner, activations_of
from model.config import small_config
from model.samplers import ALPHA
from service.engine.errors import OutOfMemoryError
from service.engine.fake_runner import FakeRunner
from service.engine.runner import StepInputs

CONFIG = small_config()


class Time:
    """A clock that stands still but for what is slept."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def runner(time: Time) -> FaultyRunner:
    return FaultyRunner(FakeRunner(CONFIG, max_batch=8), clock=time.clock, sleep=time.sleep)


def step(rows: int, *commands: list[float]) -> StepInputs:
    """A step of ordinary rows, the first of which carry commands."""
    inputs = StepInputs.blank(rows, CONFIG.image.shape, CONFIG.num_prototypes)
    activations = np.full_like(inputs.activations, 0.5)
    for row, numbers in enumerate(commands):
        activations[row] = numbers
    assert (inputs.coefficients[:, ALPHA] == 1.0).all()
    return replace(inputs, activations=activations)


def command(kind: Command, *, seconds: float = 0.0, rows: int = 0, nonce: int = 0) -> list[float]:
    return activations_of(kind, CONFIG.num_prototypes, seconds=seconds, rows=rows, nonce=nonce)


def test_commands_are_exact_in_float32() -> None:
    assert all(float(np.float32(kind.value)) == kind.value for kind in Command)


def test_poisoned_row_fails_every_call_that_holds_it(runner: FaultyRunner) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError, match="poisoned row"):
            runner.denoise_step(step(3, command(Command.POISON)))
    assert np.isfinite(runner.denoise_step(step(3)).x_next).all()


def test_row_that_is_not_finite_leaves_its_neighbours_alone(runner: FaultyRunner) -> None:
    finite = np.isfinite(runner.denoise_step(step(2, command(Command.NOT_FINITE))).x_next)
    assert not finite[0].any()
    assert finite[1].all()


def test_call_raises_once_for_each_nonce(runner: FaultyRunner) -> None:
    for nonce in (0, 1):
        inputs = step(2, command(Command.RAISES, nonce=nonce))
        with pytest.raises(RuntimeError):
            runner.denoise_step(inputs)
        runner.denoise_step(inputs)


def test_every_call_raises_until_the_time_is_over(runner: FaultyRunner, time: Time) -> None:
    for inputs in (step(1, command(Command.RAISES, seconds=2.0)), step(1)):
        with pytest.raises(RuntimeError):
            runner.denoise_step(inputs)
    time.sleep(2.0)
    runner.denoise_step(step(1))


def test_only_small_calls_fit_while_memory_is_short(runner: FaultyRunner, time: Time) -> None:
    runner.denoise_step(step(1, command(Command.OUT_OF_MEMORY, seconds=2.0, rows=4)))
    runner.denoise_step(step(4))
    with pytest.raises(OutOfMemoryError):
        runner.denoise_step(step(5))
    time.sleep(2.0)
    runner.denoise_step(step(5))


def test_one_call_hangs_as_long_as_it_was_told(runner: FaultyRunner, time: Time) -> None:
    inputs = step(1, command(Command.HANGS, seconds=12.0))
    for _ in range(2):
        runner.denoise_step(inputs)
    assert time.now_s == 12.0


def test_poisoned_picture_fails_the_encoder(runner: FaultyRunner) -> None:
    x_0 = np.zeros((2, *CONFIG.image.shape), np.float32)
    runner.encode(x_0)
    x_0[1] = POISONED_PIXEL / 127.5 - 1.0
    with pytest.raises(RuntimeError, match="poisoned picture"):
        runner.encode(x_0)
