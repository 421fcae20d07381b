"""Everything random about one sample follows from its seed, whatever it is batched with."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

NUM_SEEDS = 2**32


class Stream(IntEnum):
    """Independent uses of one seed."""

    X_T = 0
    STEP_NOISE = 1
    ACTIVATIONS = 2
    SOURCES = 3


def generator(seed: int, stream: Stream) -> np.random.Generator:
    return np.random.default_rng([seed, stream])


def initial_noise(seed: int, shape: tuple[int, ...], stream: Stream = Stream.X_T) -> npt.NDArray[np.float32]:
    """x_T of a sample: of its image (C, H, W), or on another stream of its activations (m,)."""
    return generator(seed, stream).standard_normal(shape, dtype=np.float32)


def step_noise_seed(seed: int) -> int:
    """The seed of the noise that a stochastic sampler adds at its steps."""
    state = np.random.SeedSequence([seed, Stream.STEP_NOISE]).generate_state(2, np.uint32)
    return int(state[0]) << 32 | int(state[1])


def sample_seeds(seed: int, count: int) -> tuple[int, ...]:
    """Seeds of `count` samples of one request: seed, seed + 1, … so that each can be asked for alone."""
    return tuple((seed + i) % NUM_SEEDS for i in range(count))
