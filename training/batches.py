"""Which images a step sees, and how they reach the device."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.transforms import Pixels

LARGEST_SHARE_OF_DEVICE = 0.25
"""Pixels that take less of a GPU's memory than this are kept there whole."""

SAMPLE_STREAM = 1 << 32
"""Not an epoch."""


class Batches:
    """The images of every step: an epoch is a permutation of its own, drawn from (seed, epoch).

    `size` images of a step are shared out among `num_processes` evenly, `rank` taking its part in order. A
    batch is one indexing call on the pixels (N, C, H, W); where those are not on the device, the next
    step's is gathered by a thread meanwhile.
    """

    def __init__(
        self,
        pixels: Pixels,
        *,
        size: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.size = size
        self.seed = seed
        self._device = device
        self._share = slice(rank * size // num_processes, (rank + 1) * size // num_processes)
        self._total = len(pixels)
        self._host: Pixels = pixels
        self._resident: Tensor | None = None
        if device.type == "cuda":
            memory = torch.cuda.get_device_properties(device).total_memory
            if pixels.nbytes <= LARGEST_SHARE_OF_DEVICE * memory:
                self._resident = torch.from_numpy(np.array(pixels)).to(device)
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="patronus-batches")
        self._order = (-1, np.empty(0, np.int64))
        self._next: tuple[int, Future[Tensor]] | None = None

    def pixels(self, step: int) -> Tensor:
        """This process' images of a step, (size / num_processes, C, H, W) uint8 on the device."""
        if self._resident is not None:
            indices = torch.from_numpy(self.indices(step)[self._share])
            return self._resident[indices.to(self._device)]
        if self._next is not None and self._next[0] == step:
            batch = self._next[1].result()
        else:
            batch = self._gather(step)
        self._next = (step + 1, self._ahead.submit(self._gather, step + 1))
        return batch.to(self._device, non_blocking=True)

    def sample(self, count: int) -> Tensor:
        """Up to `count` images of the data set, drawn by the seed, the same at every call, on the device."""
        order = np.random.default_rng((self.seed, SAMPLE_STREAM)).permutation(self._total)
        return torch.from_numpy(np.array(self._host[np.sort(order[:count])])).to(self._device)

    def indices(self, step: int) -> npt.NDArray[np.int64]:
        """The data set's images of a step, (size,), for all processes together."""
        positions = np.arange(step * self.size, (step + 1) * self.size)
        indices = np.empty(self.size, dtype=np.int64)
        for epoch in np.unique(positions // self._total):
            order = self._epoch(int(epoch))
            here = positions // self._total == epoch
            indices[here] = order[positions[here] % self._total]
        return indices

    def _epoch(self, epoch: int) -> npt.NDArray[np.int64]:
        known, order = self._order
        if known != epoch:
            order = np.random.default_rng((self.seed, epoch)).permutation(self._total)
            self._order = (epoch, order)
        return order

    def _gather(self, step: int) -> Tensor:
        batch = torch.from_numpy(self._host[self.indices(step)[self._share]])
        return batch.pin_memory() if self._device.type == "cuda" else batch
