"""What is asked of every server: encode images, or generate some, every request another one."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from benchmarks.http_connections import Call
from model.bundle import Bundle
from model.transforms import to_picture

NUM_NOISY_PIXELS = 16
"""Of an encode request's picture, redrawn at random so that no two pictures are the same to a cache."""


@dataclass(frozen=True)
class Kind:
    """One sort of request; `steps` 0 encodes. `row_steps`: denoise steps times images."""

    steps: int
    num_images: int = 1

    @property
    def name(self) -> str:
        return f"{self.steps} steps x {self.num_images}" if self.steps else "encode"

    @property
    def row_steps(self) -> int:
        return self.steps * self.num_images


@dataclass(frozen=True)
class Workload:
    """Kinds of requests, all as frequent; how long a window of it is, and what comes before it, in seconds.

    A window has to be long against the longest request. `clients` keep a server full in a closed loop.
    """

    name: str
    title: str
    kinds: tuple[Kind, ...]
    warm_up_s: float
    window_s: float
    clients: int

    @property
    def mean_row_steps(self) -> float:
        return float(np.mean([kind.row_steps for kind in self.kinds]))


WORKLOADS = {
    work.name: work
    for work in (
        Workload("encode", "Encode only", (Kind(0),), 1.0, 4.0, clients=64),
        Workload("generate-20", "Generate, 20 steps", (Kind(20),), 1.0, 4.0, clients=96),
        Workload(
            "mixed",
            "Generate, mixing 10, 20, 50 and 250 steps, 1 and 4 images",
            tuple(Kind(steps, n) for steps in (10, 20, 50, 250) for n in (1, 4)),
            3.0,
            12.0,
            clients=20,
        ),
    )
}


class Calls:
    """Requests of a workload without end, each with its own picture or seed and activations.

    `seed` makes them the same for every server, and those of another window different ones.
    """

    def __init__(self, bundle: Bundle, seed: int) -> None:
        assert bundle.pictures is not None
        assert bundle.statistics is not None
        self._pictures = bundle.pictures.reference_images
        self._statistics = bundle.statistics
        self._rng = np.random.default_rng([seed, 0xBE])

    def drawn(self, work: Workload) -> Iterator[Call]:
        """Kinds drawn at random."""
        while True:
            yield self.call(work.kinds[self._rng.integers(len(work.kinds))])

    def in_turn(self, work: Workload) -> Iterator[Call]:
        """Kinds one after the other, so that any stretch of time holds about as much of each."""
        while True:
            for i in self._rng.permutation(len(work.kinds)):
                yield self.call(work.kinds[i])

    def call(self, kind: Kind) -> Call:
        if not kind.steps:
            return Call(kind.name, "/encode", json.dumps({"image": self._picture()}).encode())
        activations = self._statistics.resample(self._rng, 1)[0]
        body = {
            "activations": [round(float(s), 4) for s in np.maximum(activations, 0.0)],
            "num_images": kind.num_images,
            "steps": kind.steps,
            "seed": int(self._rng.integers(2**31)),
        }
        return Call(kind.name, "/generate", json.dumps(body).encode())

    def _picture(self) -> str:
        pixels = self._pictures[self._rng.integers(len(self._pictures))].copy()
        flat = pixels.reshape(-1)
        places = self._rng.integers(flat.size, size=NUM_NOISY_PIXELS)
        flat[places] = self._rng.integers(256, size=NUM_NOISY_PIXELS)
        buffer = io.BytesIO()
        picture: Image.Image = to_picture(pixels)
        picture.save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode("ascii")
