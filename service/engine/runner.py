"""What the engine asks of whatever runs the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from model.config import ModelConfig
from model.samplers import ALPHA, NUM_COEFFICIENTS

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StepInputs:
    """One denoise step for B rows: x_t, memory, noise (B, C, H, W); timesteps (B,);
    activations (B, m); coefficients (B, 8) as in `model.samplers`.

    For the prior x_t, memory and noise are (B, m), and activations (B, 0).
    """

    x_t: Float32
    timesteps: Int64
    activations: Float32
    memory: Float32
    noise: Float32
    coefficients: Float32

    @classmethod
    def blank(cls, size: int, sample_shape: tuple[int, ...], num_conditions: int) -> StepInputs:
        """A step of `size` rows that computes nothing of interest: for warming up and measuring."""
        x = np.zeros((size, *sample_shape), np.float32)
        coefficients = np.zeros((size, NUM_COEFFICIENTS), np.float32)
        coefficients[:, ALPHA] = 1.0
        activations = np.zeros((size, num_conditions), np.float32)
        return cls(x, np.zeros(size, np.int64), activations, x, x, coefficients)

    def __len__(self) -> int:
        return len(self.timesteps)

    def rows(self, chosen: slice) -> StepInputs:
        """Views of some rows."""
        return StepInputs(**{name: array[chosen] for name, array in vars(self).items()})

    def padded(self, size: int) -> StepInputs:
        """Copies with the last row repeated up to `size` rows."""
        missing = size - len(self)
        return StepInputs(
            **{
                name: np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
                for name, array in vars(self).items()
            }
        )


@dataclass(frozen=True)
class StepOutputs:
    """What a step gives: x_next, memory_next, x_0_hat, each shaped like x_t."""

    x_next: Float32
    memory_next: Float32
    x_0_hat: Float32

    def first(self, rows: int) -> StepOutputs:
        """Views of the first `rows` rows."""
        return StepOutputs(self.x_next[:rows], self.memory_next[:rows], self.x_0_hat[:rows])


class Runner(Protocol):
    """Weights on a device. Called from one thread only; any exception means that the call failed."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def backend(self) -> str:
        """What runs the network, such as "onnxruntime 1.32.0 CPUExecutionProvider"."""
        ...

    @property
    def max_batch(self) -> int:
        """Most rows that one call may have."""
        ...

    def bucket(self, rows: int) -> int:
        """How many rows are computed for a call with `rows` rows, padding included."""
        ...

    def warm_up(self) -> None:
        """Run each batch size once, so that no request pays for first-call work."""
        ...

    def encode(self, x_0: Float32) -> tuple[Float32, Float32]:
        """x_0 (B, C, H, W) -> activations (B, m), similarity_maps (B, m, h, w)."""
        ...

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        """One step for 1 … max_batch rows. Raises OutOfMemoryError where a smaller batch may do."""
        ...

    @property
    def has_prior(self) -> bool:
        """Whether `prior_step` may be called."""
        ...

    def prior_step(self, inputs: StepInputs) -> StepOutputs:
        """One step of the latent prior for 1 … max_batch rows, in its normalised space."""
        ...
