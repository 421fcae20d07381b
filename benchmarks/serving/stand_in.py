"""A network that takes the time a small U-Net takes on a GPU, and the CPU nothing."""

from __future__ import annotations

import time

import numpy as np

from model.bundle import Bundle
from model.config import ModelConfig
from service.engine.runner import Float32, StepInputs, StepOutputs
from service.settings import Settings

STEP_BASE_S, STEP_ROW_S = 4e-3, 2e-4
ENCODE_BASE_S, ENCODE_ROW_S = 1e-3, 5e-5
"""The encoder is four convolutions beside a whole U-Net: a quarter of a step."""


class StandInRunner:
    """Each call sleeps for `base + row * rows`, which lets go of the GIL as a GPU call does.

    A step leaves x_t as it is, so that every sample ends as another picture, as with a real network; nothing
    that is cached can be found again.
    """

    def __init__(self, config: ModelConfig, *, max_batch: int) -> None:
        self._config = config
        self._max_batch = max_batch
        shape = (config.num_prototypes, *config.grid_shape)
        self._maps = np.random.default_rng(0).random(shape, np.float32)
        # Which pixels stand for the prototypes.
        self._places = np.random.default_rng(1).permutation(int(np.prod(config.image.shape)))[: shape[0]]

    @property
    def config(self) -> ModelConfig:
        return self._config

    @property
    def backend(self) -> str:
        return "stand-in"

    @property
    def max_batch(self) -> int:
        return self._max_batch

    def bucket(self, rows: int) -> int:
        return rows

    def warm_up(self) -> None:
        """Nothing to warm."""

    def encode(self, x_0: Float32) -> tuple[Float32, Float32]:
        time.sleep(ENCODE_BASE_S + ENCODE_ROW_S * len(x_0))
        activations = np.abs(x_0.reshape(len(x_0), -1)[:, self._places])
        return activations, np.repeat(self._maps[None], len(x_0), axis=0)

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        time.sleep(STEP_BASE_S + STEP_ROW_S * len(inputs))
        return StepOutputs(inputs.x_t.copy(), inputs.memory.copy(), inputs.x_t.copy())

    @property
    def has_prior(self) -> bool:
        return False

    def prior_step(self, inputs: StepInputs) -> StepOutputs:
        raise NotImplementedError("the workloads give activations; there is no prior to sample")


def stand_in(bundle: Bundle, settings: Settings) -> StandInRunner:
    """StandInRunner in the bundle's shapes."""
    return StandInRunner(bundle.config, max_batch=settings.max_batch)
