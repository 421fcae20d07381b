"""What a sample shows while it is denoised: its x̂₀ is encoded after every step."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.emergence import emergence_timesteps
from model.transforms import Pixels, from_x_0

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

Encode = Callable[[Float32], Awaitable[Float32]]
"""Activations (n, m) of images x_0 (n, C, H, W)."""


@dataclass(frozen=True, eq=False)
class Trace:
    """n samples over k steps, whose timesteps are (k,).

    activations: (n, k, m) of x̂₀ after each step; emergence: (n, m) timesteps, -1 for never
    (`model.emergence`); preview_steps: the steps, from 1, of which `previews` [n][len] show x̂₀.
    """

    timesteps: Int64
    activations: Float32
    emergence: Int64
    preview_steps: tuple[int, ...]
    previews: list[list[Pixels]]


class Tracer:
    """Follows one job and has the engine encode what it sees, beside the steps that go on.

    `on_step` is for the engine's thread, the rest for the event loop that the tracer was made in. The engine
    encodes all that waits at each tick, so no more than a few steps' x̂₀ are held.
    """

    def __init__(
        self, encode: Encode, *, num_samples: int, timesteps: Int64, num_prototypes: int, num_previews: int
    ) -> None:
        steps = len(timesteps)
        self._encode = encode
        self._timesteps = timesteps
        self._activations = np.empty((num_samples, steps, num_prototypes), np.float32)
        self._num_left = num_samples * steps
        shown = np.linspace(1, steps, min(num_previews, steps)).round().astype(int).tolist()
        self._previews: dict[int, list[Pixels | None]] = {step: [None] * num_samples for step in shown}
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._new: list[tuple[int, int, Float32]] = []
        self._wake = asyncio.Event()

    def on_step(self, sample: int, step: int, x_0_hat: Float32) -> None:
        """As `service.engine.jobs.OnStep`."""
        with self._lock:
            was_empty = not self._new
            self._new.append((sample, step, x_0_hat))
        if was_empty:
            self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> Trace:
        """Encode until every step of every sample is; whoever awaits it cancels it when the job fails."""
        while self._num_left:
            await self._wake.wait()
            self._wake.clear()
            with self._lock:
                new, self._new = self._new, []
            found = await self._encode(np.stack([x_0_hat for _, _, x_0_hat in new]))
            for (sample, step, x_0_hat), activations in zip(new, found, strict=True):
                self._activations[sample, step - 1] = activations
                if step in self._previews:
                    self._previews[step][sample] = from_x_0(x_0_hat)
            self._num_left -= len(new)
        by_step = list(self._previews.values())
        return Trace(
            timesteps=self._timesteps,
            activations=self._activations,
            emergence=emergence_timesteps(self._activations, self._timesteps),
            preview_steps=tuple(self._previews),
            previews=[
                [picture for pictures in by_step if (picture := pictures[i]) is not None]
                for i in range(len(self._activations))
            ],
        )
