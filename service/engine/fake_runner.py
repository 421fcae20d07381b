"""A runner without weights, so that everything above it can be tested in milliseconds."""

from __future__ import annotations

import numpy as np

from model.config import ModelConfig, small_config
from model.samplers import ALPHA, SIGMA, apply_step
from service.engine.runner import Float32, StepInputs, StepOutputs


class FakeRunner:
    """Deterministic stand-in: encoding is a random projection, the predicted eps a function of (x_t, t, s).

    Rows do not influence one another, as in a real network. `calls` counts steps.
    """

    def __init__(
        self, config: ModelConfig | None = None, *, max_batch: int = 8, has_prior: bool = False
    ) -> None:
        self._config = config or small_config()
        self._max_batch = max_batch
        self._has_prior = has_prior
        self.calls = 0
        m, (height, width) = self._config.num_prototypes, self._config.grid_shape
        rng = np.random.default_rng(0)
        pixels = int(np.prod(self._config.image.shape))
        self._projection = rng.standard_normal((pixels, m * height * width), dtype=np.float32) / pixels
        self._directions = rng.standard_normal((m, pixels), dtype=np.float32) / m

    @property
    def config(self) -> ModelConfig:
        return self._config

    @property
    def backend(self) -> str:
        return "fake"

    @property
    def max_batch(self) -> int:
        return self._max_batch

    def bucket(self, rows: int) -> int:
        return rows

    def warm_up(self) -> None:
        """Nothing to warm."""

    def encode(self, x_0: Float32) -> tuple[Float32, Float32]:
        flat = x_0.reshape(len(x_0), -1)
        maps = np.stack([np.abs(row @ self._projection) for row in flat])  # row by row: no batch effects
        maps = maps.reshape(len(x_0), self._config.num_prototypes, *self._config.grid_shape)
        return maps.max(axis=(2, 3)), maps

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        self.calls += 1
        time = (inputs.timesteps / self._config.schedule.num_timesteps).astype(np.float32)
        pull = np.stack([s @ self._directions for s in inputs.activations]).reshape(inputs.x_t.shape)
        eps = np.tanh(inputs.x_t - pull) * time[:, None, None, None]
        alpha, sigma = (inputs.coefficients[:, i, None, None, None] for i in (ALPHA, SIGMA))
        x_0_hat = (inputs.x_t - sigma * eps) / alpha
        step = apply_step(x_0_hat, inputs.x_t, inputs.memory, inputs.noise, inputs.coefficients)
        return StepOutputs(*(part.astype(np.float32) for part in step))

    @property
    def has_prior(self) -> bool:
        return self._has_prior

    def prior_step(self, inputs: StepInputs) -> StepOutputs:
        eps = np.tanh(inputs.x_t) * (inputs.timesteps[:, None] / 1000).astype(np.float32)
        alpha, sigma = (inputs.coefficients[:, i, None] for i in (ALPHA, SIGMA))
        step = apply_step(
            (inputs.x_t - sigma * eps) / alpha,
            inputs.x_t,
            inputs.memory,
            inputs.noise,
            inputs.coefficients,
        )
        return StepOutputs(*(part.astype(np.float32) for part in step))
