"""A seeded corpus of broken pictures and bodies: none of them may cause a 500, and the service lives on."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.service.conftest import b64, png

NUM_PICTURES = 1200
NUM_BODIES = 1200

PATHS = ("/encode", "/generate", "/edit", "/visualize")
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**40, 1e308, -1e308, 1e-320, 0.5, "", "0", "max",
    "\x00", "\ud800", "é" * 50, "a" * 5000, [], [[]], [None], [0] * 1000, {}, {"": None}, {"prototype": 0},
    [{"prototype": 0, "op": "max"}], [{"prototype": "nobody", "op": "add", "value": 1}],
)  # fmt: skip
FIELDS = (
    "image", "images", "image_id", "maps", "activations", "edits", "extrapolate", "num_images", "steps",
    "sampler", "eta", "seed", "x_T", "rounds", "prototypes", "num_samples", "trace", "priority", "unknown",
)  # fmt: skip


def broken_pictures(rng: np.random.Generator) -> Iterator[bytes]:
    """Pictures of every format the service reads, then cut, flipped, spliced or grown at random places."""
    seeds = []
    for mode, size in (
        ("L", (28, 28)),
        ("RGB", (40, 24)),
        ("RGBA", (16, 16)),
        ("P", (20, 20)),
        ("1", (9, 9)),
    ):
        shape = (size[1], size[0], 4)
        image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).convert(mode)
        for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
            buffer = io.BytesIO()
            try:
                image.save(buffer, kind)
            except OSError:
                continue  # JPEG has no transparency
            seeds.append(buffer.getvalue())
    while True:
        data = bytearray(seeds[rng.integers(len(seeds))])
        for _ in range(int(rng.integers(1, 4))):
            place = int(rng.integers(len(data))) if data else 0
            match int(rng.integers(6)):
                case 0:
                    data = data[:place]
                case 1 if data:
                    data[place] ^= 1 << int(rng.integers(8))
                case 2:
                    data[place:place] = rng.bytes(int(rng.integers(1, 64)))
                case 3:
                    other = seeds[rng.integers(len(seeds))]
                    data = data[:place] + bytearray(other[int(rng.integers(len(other))) :])
                case 4:
                    del data[place : place + int(rng.integers(1, 32))]
                case _:
                    data[place : place + 4] = b"\xff\xff\xff\xff"
        yield bytes(data)


def broken_bodies(rng: np.random.Generator, good: str) -> Iterator[bytes]:
    """JSON of known fields with values of every kind, some of it then cut or with bytes exchanged."""

    def value(depth: int = 0) -> Any:
        if depth < 3 and rng.random() < 0.15:
            return [value(depth + 1) for _ in range(int(rng.integers(4)))]
        if depth < 3 and rng.random() < 0.1:
            return {str(rng.choice(FIELDS)): value(depth + 1)}
        return VALUES[rng.integers(len(VALUES))]

    while True:
        fields = rng.choice(FIELDS, int(rng.integers(0, 6)), replace=False)
        body = {str(name): value() for name in fields}
        if rng.random() < 0.5:
            body["image"] = good
        if rng.random() < 0.7:  # what is well-formed is to stay cheap
            body |= {"steps": 1}
        text = bytearray(json.dumps(body).encode())
        match int(rng.integers(5)):
            case 0:
                text = text[: int(rng.integers(len(text) + 1))]
            case 1:
                text[int(rng.integers(len(text)))] = int(rng.integers(256))
            case 2:
                text = bytearray(b"[" * int(rng.integers(1, 5000))) + text
            case _:
                pass
        yield bytes(text)


def assert_answered(response: httpx.Response, sent: bytes) -> None:
    excerpt = sent[:300]
    assert response.status_code < 500, (response.status_code, excerpt, response.text[:300])
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/problem+json", excerpt
        assert response.json()["status"] == response.status_code
    assert response.headers["x-request-id"]


@pytest.mark.parametrize("seed", range(4))
def test_broken_pictures_never_cause_a_500(fake: httpx.Client, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pictures = broken_pictures(rng)
    statuses: Counter[int] = Counter()
    for i in range(NUM_PICTURES // 4):
        data = next(pictures)
        if i % 2:
            response = fake.post("/encode", files={"image": data})
        else:
            response = fake.post("/encode", json={"image": b64(data)})
        assert_answered(response, data)
        statuses[response.status_code] += 1
    assert statuses[422] > 100  # most of them are broken indeed
    assert fake.get("/readyz").status_code == 200


@pytest.mark.parametrize("seed", range(4))
def test_broken_bodies_never_cause_a_500(fake: httpx.Client, noise_picture: Image.Image, seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    bodies = broken_bodies(rng, b64(png(noise_picture)))
    statuses: Counter[int] = Counter()
    for i in range(NUM_BODIES // 4):
        body = next(bodies)
        path = PATHS[i % len(PATHS)]
        kind = "multipart/form-data; boundary=x" if rng.random() < 0.1 else "application/json"
        response = fake.post(path, content=body, headers={"content-type": kind})
        assert_answered(response, body)
        statuses[response.status_code] += 1
    assert statuses[422] > 50
    assert statuses[400] > 30
    assert fake.get("/readyz").status_code == 200
