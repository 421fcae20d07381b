"""Clients of every kind at once: those that ask rightly, leave early, ask for too much, or have no key."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from benchmarks.faults.calls import Address, Call, LostError, UnreachableError, send

KEY = "monitored-service"
MAX_QUEUE = 16
SETTINGS = {
    "PATRONUS_API_KEYS": KEY,
    "PATRONUS_MAX_BATCH": "8",
    "PATRONUS_MAX_QUEUE": str(MAX_QUEUE),
    "PATRONUS_TUNE_BATCH": "off",
}
"""Of a service that this load brings to everything that it counts."""
PAUSE_S = 0.05
IMPATIENCE_S = 0.1


@asynccontextmanager
async def load(address: Address, pictures: Sequence[bytes], *, num_clients: int = 3) -> AsyncIterator[None]:
    """Clients that go on asking about `pictures` (encoded files) until the block ends.

    If the service cannot be reached, they ask again.
    """
    encoded = [base64.b64encode(picture).decode() for picture in pictures]
    rngs = np.random.default_rng(0).spawn(num_clients)
    clients = [asyncio.create_task(_sensible(address, encoded, rng)) for rng in rngs]
    clients += [asyncio.create_task(client(address)) for client in (_leaving, _greedy, _wrong)]
    try:
        yield
        for client in clients:
            if client.done():
                client.result()  # an error of ours
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


async def _sensible(address: Address, pictures: Sequence[str], rng: np.random.Generator) -> None:
    while True:
        picture = pictures[int(rng.integers(len(pictures)))]
        prototype, steps = int(rng.integers(30)), int(rng.choice([5, 10, 20]))
        match int(rng.integers(5)):
            case 0 | 1:
                await _ask(address, "/encode", {"images": [picture]})
            case 2 | 3:
                num_images = int(rng.integers(1, 4))
                await _ask(address, "/generate", {"steps": steps, "num_images": num_images})
            case _:
                edits = [{"prototype": prototype, "op": "max"}]
                body = {"image": picture, "edits": edits, "steps": 5, "rounds": 1}
                await _ask(address, "/edit", body)
        await asyncio.sleep(PAUSE_S)


async def _leaving(address: Address) -> None:
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IMPATIENCE_S):
                await _ask(address, "/generate", {"steps": 200})
        await asyncio.sleep(1.0)


async def _greedy(address: Address) -> None:
    """More at once than may wait."""
    while True:
        body = {"steps": 5, "num_images": MAX_QUEUE // 2}
        await asyncio.gather(*(_ask(address, "/generate", body) for _ in range(4)))
        await asyncio.sleep(3.0)


async def _wrong(address: Address) -> None:
    while True:
        await _ask(address, "/generate", {"steps": -1})
        await _ask(address, "/encode", {"image_id": "no such image"}, key="a-wrong-key")
        await asyncio.sleep(1.0)


async def _ask(address: Address, path: str, body: Mapping[str, Any], key: str = KEY) -> None:
    headers = {"Content-Type": "application/json", "X-API-Key": key}
    try:
        await send(address, Call("POST", path, json.dumps(body).encode(), headers))
    except (LostError, UnreachableError):
        await asyncio.sleep(PAUSE_S)
