"""What clients of the soak ask for: every use of the model, mostly new work, some with known answers."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.faults.calls import Address, Call, Reply, send
from benchmarks.faults.clients import Request
from benchmarks.faults.contract import Patronus
from benchmarks.faults.outcomes import Expected

DEADLINE_S = 30.0
REFUSALS = frozenset({503, 504})
SHARE_KNOWN = 0.2
NUM_KNOWN = 6
"""Requests of each kind whose answer is known from before the load."""
KINDS = {"encode": 0.35, "generate 10": 0.15, "generate 20": 0.15, "generate 50": 0.1, "edit": 0.15} | {
    "visualize": 0.1
}
MAX_IMAGES = 4
PICTURE_TOLERANCE = 2
"""Of 255. Rows share calls of other sizes than alone, whose sums are rounded otherwise."""
ACTIVATION_TOLERANCE = 1e-3


@dataclass
class LargestDifference:
    """From the answers that were given alone: of pixels, out of 255, and of activations."""

    num_compared: int = 0
    pixels: float = 0.0
    activations: float = 0.0


class Workload:
    """Draws requests over `pictures` (encoded files). `largest` tells how far known answers were off."""

    def __init__(self, num_prototypes: int, pictures: Sequence[bytes], rng: np.random.Generator) -> None:
        self._m = num_prototypes
        self._contract = Patronus(num_prototypes)
        self._pictures = [base64.b64encode(file).decode() for file in pictures]
        self._rng = rng
        self._known: dict[str, list[Request]] = {}
        self._solo_s: dict[str, float] = {}
        self.largest = LargestDifference()

    async def learn(self, address: Address) -> None:
        """Ask for the answers that are to be compared. Raises RuntimeError where one is refused."""
        for kind in KINDS:
            self._known[kind] = []
            started_at = time.monotonic()
            for _ in range(NUM_KNOWN):
                call = self._call(kind)
                async with asyncio.timeout(DEADLINE_S):
                    reply = await send(address, call)
                if reply.status != 200:
                    raise RuntimeError(f"{kind} alone is answered {reply.status}: {reply.body[:500]!r}")
                right = _parts(reply)
                check = self._comparison(kind, right)
                self._known[kind].append(Request(call, Expected(check, REFUSALS, DEADLINE_S), kind=kind))
            self._solo_s[kind] = (time.monotonic() - started_at) / NUM_KNOWN

    def draw(self, *, leaving: float = 0.0) -> Request:
        """The next request; a share `leaving` of the clients goes within the time that it takes alone."""
        kind = str(self._rng.choice(list(KINDS), p=list(KINDS.values())))
        known = self._known.get(kind, [])
        if known and self._rng.random() < SHARE_KNOWN:
            request = known[int(self._rng.integers(len(known)))]
        else:
            call = self._call(kind)
            request = Request(call, Expected(_complete(call), REFUSALS, DEADLINE_S), kind=kind)
        if self._rng.random() < leaving:
            return replace(request, leaves_after_s=float(self._rng.uniform(0.0, self._solo_s[kind])))
        return request

    def _call(self, kind: str) -> Call:
        picture = self._pictures[int(self._rng.integers(len(self._pictures)))]
        seed = int(self._rng.integers(2**32))
        prototype = int(self._rng.integers(self._m))
        body: dict[str, Any]
        if kind == "encode":
            path, body = "/encode", {"images": [self._new_picture() for _ in range(self._count())]}
        elif kind == "edit":
            edits = [{"prototype": prototype, "op": "max"}]
            path, body = "/edit", {"image": picture, "edits": edits, "steps": 10, "rounds": 1}
        elif kind == "visualize":
            body = {"prototypes": [prototype], "num_samples": 3, "steps": 5, "seed": seed}
            path = "/visualize"
        else:
            steps = int(kind.removeprefix("generate "))
            path, body = "/generate", {"seed": seed, "steps": steps, "num_images": self._count()}
        return self._contract.post(path, body)

    def _count(self) -> int:
        return int(self._rng.integers(1, MAX_IMAGES + 1))

    def _new_picture(self) -> str:
        buffer = io.BytesIO()
        pixels = self._rng.integers(0, 256, (28, 28), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()

    def _comparison(self, kind: str, right: Sequence[npt.NDArray[Any]]) -> Callable[[Reply], str | None]:
        def check(reply: Reply) -> str | None:
            try:
                parts = _parts(reply)
            except (ValueError, LookupError, OSError) as error:
                return f"{kind}: a 200 that cannot be read: {error}"
            if [part.shape for part in parts] != [part.shape for part in right]:
                return f"{kind}: other parts than alone"
            self.largest.num_compared += 1
            for part, other in zip(parts, right, strict=True):
                difference = float(np.abs(part.astype(np.float64) - other.astype(np.float64)).max())
                if part.dtype == np.uint8:
                    self.largest.pixels = max(self.largest.pixels, difference)
                    if difference > PICTURE_TOLERANCE:
                        return f"{kind}: a pixel is {difference:.0f} of 255 off"
                else:
                    self.largest.activations = max(self.largest.activations, difference)
                    if difference > ACTIVATION_TOLERANCE:
                        return f"{kind}: an activation is {difference:.2g} off"
            return None

        return check


def _complete(call: Call) -> Callable[[Reply], str | None]:
    """Checks that an answer has as many images as were asked for."""
    asked = json.loads(call.body)
    count = asked.get("num_images") or len(asked.get("images", [])) or 1

    def check(reply: Reply) -> str | None:
        try:
            body = json.loads(reply.body)
            found = len(body["prototypes"] if call.path == "/visualize" else body.get("images", [0]))
        except (ValueError, LookupError) as error:
            return f"{call.path}: a 200 that cannot be read: {error}"
        return None if found == count else f"{call.path}: {found} images for {count} asked"

    return check


def _parts(reply: Reply) -> list[npt.NDArray[Any]]:
    """The pictures (uint8) of an answer, and where no picture is made the activations."""
    body: Mapping[str, Any] = json.loads(reply.body)
    if "prototypes" in body:
        return [_pixels(found["enhanced"]) for found in body["prototypes"]]
    if "reconstruction" in body:
        return [_pixels(body["image"]), _pixels(body["reconstruction"])]
    if "image" in body["images"][0]:
        return [_pixels(image["image"]) for image in body["images"]]
    return [np.array(image["activations"]) for image in body["images"]]


def _pixels(text: str) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        return np.array(picture)
