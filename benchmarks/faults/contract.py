"""What a server is asked, and what a right answer looks like: the only part that knows whose API it is.

A peer takes part in every fault that its `Contract` can express; only Patronus is described here so far.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from PIL import Image

from benchmarks.faults.calls import Call, Reply
from benchmarks.faults.faulty_runner import POISONED_PIXEL, Command, activations_of

JSON = {"Content-Type": "application/json"}
PICTURE_SIDE = 28


class Contract(Protocol):
    """Requests that a server understands, and how its answers and its state are read."""

    def generate(
        self, seed: int, steps: int, *, num_images: int = 1, headers: Mapping[str, str] | None = None
    ) -> Call:
        """Sample pictures that follow from the arguments alone."""
        ...

    def faulty(
        self, command: Command, steps: int, *, seconds: float = 0.0, rows: int = 0, nonce: int = 0
    ) -> Call:
        """A sample whose condition carries a command for the network."""
        ...

    def encode(self, picture: bytes) -> Call:
        """Read an encoded picture."""
        ...

    def content(self, reply: Reply) -> object:
        """What an answer with status 200 says, comparable, timings left out. Raises ValueError."""
        ...

    def is_cached(self, reply: Reply) -> bool:
        """Whether the answer to `encode` was kept from an earlier one."""
        ...

    def busy(self, metrics: str) -> float:
        """Requests and samples that the server believes to have, from its Prometheus text."""
        ...

    def wasted_steps(self, metrics: str) -> float:
        """Row-steps done for clients that had left."""
        ...


class Patronus:
    """Our own contract; `num_prototypes` is the served model's m."""

    def __init__(self, num_prototypes: int) -> None:
        self._m = num_prototypes

    def generate(
        self, seed: int, steps: int, *, num_images: int = 1, headers: Mapping[str, str] | None = None
    ) -> Call:
        s = np.random.default_rng(seed).uniform(0.0, 3.0, self._m).round(3).tolist()
        return self._generate(s, seed, steps, num_images, headers or {})

    def faulty(
        self, command: Command, steps: int, *, seconds: float = 0.0, rows: int = 0, nonce: int = 0
    ) -> Call:
        s = activations_of(command, self._m, seconds=seconds, rows=rows, nonce=nonce)
        return self._generate(s, 0, steps, 1, {})

    def encode(self, picture: bytes) -> Call:
        return self.post("/encode", {"image": base64.b64encode(picture).decode()})

    def post(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Call:
        return Call("POST", path, json.dumps(body).encode(), {**JSON, **(headers or {})})

    def content(self, reply: Reply) -> object:
        body = json.loads(reply.body)
        if not isinstance(body, dict):
            raise ValueError("the answer is not an object")
        for name in ("timings", "model"):
            body.pop(name, None)
        for image in body.get("images", []):
            image.pop("cached", None)
        return body

    def is_cached(self, reply: Reply) -> bool:
        return bool(json.loads(reply.body)["images"][0]["cached"])

    def busy(self, metrics: str) -> float:
        names = ("patronus_active_samples", "patronus_num_requests_waiting", "patronus_num_requests_running")
        return sum(metric(metrics, name) for name in names)

    def wasted_steps(self, metrics: str) -> float:
        return metric(metrics, "patronus_denoise_steps_wasted_total")

    def _generate(
        self, s: list[float], seed: int, steps: int, num_images: int, headers: Mapping[str, str]
    ) -> Call:
        body = {"activations": s, "seed": seed, "steps": steps, "num_images": num_images}
        return self.post("/generate", body, headers)


def metric(text: str, name: str) -> float:
    """The sum of a metric's samples, over all its labels, in Prometheus text."""
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{")))
    return sum(float(value) for _, value in lines)


def picture_file(seed: int, *, side: int = PICTURE_SIDE, format: str = "PNG") -> bytes:
    """A gray picture of noise, as a file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
    return _file(Image.fromarray(pixels), format)


def poisoned_picture_file() -> bytes:
    """The picture that makes the encoder raise, at a size that is not resized to others' values."""
    return _file(Image.fromarray(np.full((32, 32), POISONED_PIXEL, np.uint8)), "PNG")


def _file(picture: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format)
    return buffer.getvalue()
