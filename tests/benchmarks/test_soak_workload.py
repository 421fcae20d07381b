"""What the soak asks for, and whether it would notice a wrong answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.faults.calls import Address, Reply
from benchmarks.faults.clients import Request
from benchmarks.soak.workload import KINDS, PICTURE_TOLERANCE, Workload


def picture(level: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.full((32, 32), level, np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def answer_to(path: str, asked: dict[str, Any], level: int = 100) -> bytes:
    """An answer of the right form, whose pictures are gray and whose activations are a thousandth of that."""
    body: dict[str, Any]
    if path == "/encode":
        body = {"images": [{"activations": [level / 1000]} for _ in asked["images"]]}
    elif path == "/edit":
        body = {"image": picture(level), "reconstruction": picture(level), "activations": {}}
    elif path == "/visualize":
        body = {"prototypes": [{"enhanced": picture(level)} for _ in asked["prototypes"]]}
    else:
        body = {"images": [{"image": picture(level)} for _ in range(asked["num_images"])]}
    return json.dumps(body).encode()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.partition("Content-Length: ")[2].partition("\r\n")[0])
        asked = json.loads(await reader.readexactly(length))
        body = answer_to(head.split(" ")[1], asked)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
    writer.close()


def learnt() -> Workload:
    """A workload that knows some answers of a server whose pictures are all of level 100."""
    workload = Workload(4, [base64.b64decode(picture(7))], np.random.default_rng(0))

    async def learn() -> None:
        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            await workload.learn(Address("127.0.0.1", listening.sockets[0].getsockname()[1]))
        finally:
            listening.close()

    asyncio.run(learn())
    return workload


def verdict(request: Request, level: int) -> str | None:
    reply = Reply(200, {}, answer_to(request.call.path, json.loads(request.call.body), level))
    return request.expected.check(reply)


def test_every_kind_is_drawn_and_a_share_of_each_is_compared() -> None:
    workload = learnt()
    requests = [workload.draw() for _ in range(1000)]
    assert {request.kind for request in requests} == set(KINDS)
    assert all(verdict(request, 100) is None for request in requests)
    noticed = [request for request in requests if verdict(request, 103) is not None]
    assert {request.kind for request in noticed} == set(KINDS)
    assert 130 <= len(noticed) <= 270  # 200 expected


def test_rounding_is_no_wrong_answer() -> None:
    workload = learnt()
    requests = [workload.draw() for _ in range(300)]
    pictures = [request for request in requests if request.kind != "encode"]
    assert all(verdict(request, 100 + PICTURE_TOLERANCE) is None for request in pictures)
    assert workload.largest.pixels == PICTURE_TOLERANCE


def test_answer_with_too_few_images_is_noticed_for_every_request() -> None:
    workload = learnt()
    empty = Reply(200, {}, json.dumps({"images": [], "prototypes": []}).encode())
    requests = [request for request in (workload.draw() for _ in range(100)) if request.kind != "edit"]
    assert all(request.expected.check(empty) is not None for request in requests)


def test_some_clients_leave_before_they_can_be_answered() -> None:
    workload = learnt()
    leaving = [workload.draw(leaving=0.5).leaves_after_s is not None for _ in range(400)]
    assert 150 <= sum(leaving) <= 250
    assert not any(workload.draw().leaves_after_s is not None for _ in range(50))
