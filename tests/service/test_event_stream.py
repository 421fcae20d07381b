"""Streamed answers, through the whole HTTP stack."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Scope

from model.bundle import Bundle
from service.cache.cache import Cache
from service.cache.memory_store import MemoryStore
from service.engine.async_engine import AsyncEngine
from service.engine.engine_core import EngineCore
from service.engine.fake_runner import FakeRunner
from service.engine.runner import StepInputs, StepOutputs
from service.metrics import Metrics
from service.pipeline.pipeline import Pipeline
from service.routes.answering import Context
from service.routes.event_stream import EventStream, Follower
from service.settings import Settings
from tests.service.conftest import b64, eventually, metric, picture, serving

EVENTS = {"Accept": "text/event-stream"}

Event = tuple[str, dict[str, Any]]


def parsed(text: str) -> list[Event]:
    """Events by name, comments left out."""
    events = []
    for block in text.strip().split("\n\n"):
        if not block.startswith(":"):
            name, data = block.split("\n")
            events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


def stream(client: httpx.Client, path: str, body: dict[str, Any]) -> list[Event]:
    answer = client.post(path, json=body, headers=EVENTS)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    return parsed(answer.text)


def without_timings(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "timings"}


def test_streamed_result_is_the_answer_of_a_request_that_is_not_streamed(fake: httpx.Client) -> None:
    body = {"num_images": 3, "steps": 15, "seed": 5}
    *progress, (name, result) = stream(fake, "/generate", body)
    assert name == "result"
    assert without_timings(result) == without_timings(fake.post("/generate", json=body).json())
    assert {name for name, _ in progress} == {"progress"}
    for image in range(3):
        steps = [event["step"] for _, event in progress if event["image"] == image]
        assert steps == sorted(set(steps))
        assert steps[-1] == 15
    assert all(event["steps"] == 15 and event["stage"] == "generate" for _, event in progress)
    assert all("preview" not in event for _, event in progress)


def test_previews_come_as_often_as_asked_and_end_with_the_image(fake: httpx.Client) -> None:
    body = {"steps": 30, "seed": 5, "preview_every": 10}
    *progress, (_, result) = stream(fake, "/generate", body)
    pictured = [event for _, event in progress if "preview" in event]
    gaps = np.diff([0, *(event["step"] for event in pictured[:-1])])
    assert (gaps >= 10).all()
    assert pictured[-1]["step"] == 30
    last, image = picture(pictured[-1]["preview"]), picture(result["images"][0]["image"])
    np.testing.assert_allclose(np.asarray(last, int), np.asarray(image, int), atol=1)  # DDIM ends at x_0_hat


def test_edit_tells_its_stages_in_order(fake: httpx.Client, reference_pngs: list[bytes]) -> None:
    image = b64(reference_pngs[0])
    body = {"image": image, "edits": [{"prototype": 3, "op": "set", "value": 2.0}], "steps": 5}
    *progress, (name, result) = stream(fake, "/edit", {**body, "preview_every": 1})
    assert name == "result"
    stages = list(dict.fromkeys(event["stage"] for _, event in progress))
    assert stages == (["invert", "generate", "correct"] if result["rounds"] > 1 else ["invert", "generate"])
    assert {event["image"] for _, event in progress if event["stage"] == "generate"} == {0, 1}
    assert all(("preview" in event) == (event["stage"] != "invert") for _, event in progress)


def test_visualize_tells_which_prototype_it_is_at(fake: httpx.Client) -> None:
    *progress, (name, result) = stream(
        fake, "/visualize", {"prototypes": [4, 2], "num_samples": 2, "steps": 3}
    )
    assert name == "result"
    assert [item["prototype"] for item in result["prototypes"]] == [4, 2]
    generated = [event for _, event in progress if event["stage"] == "generate"]
    assert list(dict.fromkeys(event["prototype"] for event in generated)) == [4, 2]
    last = {(event["prototype"], event["image"]): event["step"] for event in generated}
    assert last == {(j, i): 3 for j in (4, 2) for i in (0, 1)}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/generate", {"steps": 0}, 422),
        ("/generate", {"edits": [{"prototype": 9999, "op": "max"}]}, 404),
        ("/edit", {"edits": [{"prototype": 1, "op": "max"}]}, 422),
    ],
)
def test_what_is_refused_at_once_has_its_http_status(
    fake: httpx.Client, path: str, body: dict[str, Any], status: int
) -> None:
    answer = fake.post(path, json=body, headers=EVENTS)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_malformed_form_is_refused_as_ever(fake: httpx.Client) -> None:
    headers = {**EVENTS, "Content-Type": "multipart/form-data"}
    answer = fake.post("/generate", content=b"no form", headers=headers)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def test_preview_every_is_refused_where_nothing_is_streamed(fake: httpx.Client) -> None:
    answer = fake.post("/generate", json={"steps": 2, "preview_every": 1})
    assert answer.status_code == 422
    assert "text/event-stream" in answer.json()["detail"]


def test_event_stream_wins_over_a_picture(fake: httpx.Client) -> None:
    headers = {"Accept": "image/png, text/event-stream"}
    answer = fake.post("/generate", json={"steps": 2}, headers=headers)
    assert parsed(answer.text)[-1][0] == "result"


@pytest.mark.parametrize(
    "accept", ["text/event-stream;q=0", "*/*", "application/json, text/event-stream;q=0.0"]
)
def test_who_does_not_want_events_gets_json(fake: httpx.Client, accept: str) -> None:
    answer = fake.post("/generate", json={"steps": 2}, headers={"Accept": accept})
    assert answer.headers["content-type"] == "application/json"


class PausingRunner(FakeRunner):
    """Stops before its step number `pause_at` until `gate` is open, and then may fail."""

    def __init__(self, bundle: Bundle, *, pause_at: int, fails: bool) -> None:
        super().__init__(bundle.config, max_batch=8, has_prior=bundle.prior is not None)
        self.gate = threading.Event()
        self._pause_at = pause_at
        self._fails = fails

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        if self.calls == self._pause_at:
            assert self.gate.wait(30)
            if self._fails:
                raise RuntimeError("secret detail of the device")
        return super().denoise_step(inputs)


def first_event(answer: httpx.Response) -> tuple[str, Iterator[str]]:
    """The name of the first event of a stream, and the lines that follow."""
    lines = answer.iter_lines()
    return next(lines).removeprefix("event: "), lines


@pytest.mark.parametrize(("fails", "last", "reason"), [(True, "error", "error"), (False, "result", "ok")])
def test_what_comes_after_the_first_event_comes_as_an_event(
    bundle: Bundle, settings: Settings, fails: bool, last: str, reason: str
) -> None:
    runner = PausingRunner(bundle, pause_at=2, fails=fails)
    with serving(settings, lambda *_: runner) as url:
        with httpx.stream("POST", f"{url}/generate", json={"steps": 9}, headers=EVENTS, timeout=30) as answer:
            assert answer.status_code == 200
            name, lines = first_event(answer)
            assert name == "progress"
            runner.gate.set()
            text = "\n".join(lines)
        name, body = parsed(text[text.index("event: ") :])[-1]
        assert name == last
        if fails:
            assert (body["status"], body["title"]) == (500, "Internal Server Error")
            assert "secret" not in text
        assert metric(url, f'patronus_requests_total{{endpoint="generate",finished_reason="{reason}"') == 1.0


def test_deadline_after_the_first_event_is_an_error_event(bundle: Bundle, settings: Settings) -> None:
    runner = PausingRunner(bundle, pause_at=2, fails=False)
    with serving(replace(settings, drain_timeout_s=1.0), lambda *_: runner) as url:
        headers = {**EVENTS, "X-Request-Timeout": "0.5"}
        answer = httpx.post(f"{url}/generate", json={"steps": 9}, headers=headers, timeout=30)
        assert [name for name, _ in parsed(answer.text)][-1] == "error"
        assert parsed(answer.text)[-1][1]["status"] == 504
        runner.gate.set()


def test_client_that_leaves_its_stream_stops_costing_within_one_step(
    bundle: Bundle, settings: Settings
) -> None:
    runner = PausingRunner(bundle, pause_at=1, fails=False)
    with serving(settings, lambda *_: runner) as url:
        with httpx.stream("POST", f"{url}/generate", json={"steps": 200}, headers=EVENTS) as answer:
            assert first_event(answer)[0] == "progress"
        left = 'patronus_requests_total{endpoint="generate",finished_reason="disconnected"'
        eventually(url, left, 1.0)
        runner.gate.set()
        eventually(url, "patronus_active_samples", 0.0)
        assert metric(url, "patronus_denoise_steps_wasted_total") == 1.0
        assert metric(url, "patronus_denoise_steps_total") == 2.0


def test_client_that_does_not_read_delays_nobody_and_gets_its_result(fake: httpx.Client) -> None:
    parts = urlsplit(str(fake.base_url))
    asked = {"steps": 200, "num_images": 32, "preview_every": 1}
    body = json.dumps(asked).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((parts.hostname, parts.port))
        lines = (
            "Host: x",
            "Accept: text/event-stream",
            "Content-Type: application/json",
            "Connection: close",
        )
        head = "\r\n".join(["POST /generate HTTP/1.1", *lines, f"Content-Length: {len(body)}", "", ""])
        connection.sendall(head.encode() + body)
        for seed in range(3):  # each would wait behind the one that does not read
            assert fake.post("/generate", json={"steps": 200, "seed": seed}).status_code == 200
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.count(b"event: result") == 1
    previews = received.count(b'"preview"')
    assert 32 <= previews < 32 * 200  # every image's last step was told, most of the others were not


def test_silence_is_broken_by_comments(bundle: Bundle) -> None:
    sent: list[Message] = []
    metrics = Metrics()
    release = asyncio.Event()

    async def send(message: Message) -> None:
        sent.append(message)
        if b": waiting" in message.get("body", b""):
            release.set()

    async def stay() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def scenario() -> None:
        core = EngineCore(FakeRunner(bundle.config), max_queue=10, observer=metrics.engine_observer())
        async with AsyncEngine(core, max_queue=10) as engine:
            cache = Cache(MemoryStore(max_bytes=0), namespace="", observer=metrics)
            context = Context(Settings(), engine, [Pipeline(bundle, engine, cache)], metrics)
            scope: Scope = {"type": "http", "method": "POST", "headers": []}
            request = Request(scope, stay)

            async def work(deadline: float, follower: Follower | None) -> Response:
                request.state.body_read.set()
                await release.wait()
                return Response(b'{"done": true}')

            answer = EventStream(context, request, "generate", work, keep_alive_s=0.001)
            await answer(scope, stay, send)

    asyncio.run(asyncio.wait_for(scenario(), 20))
    text = b"".join(message.get("body", b"") for message in sent).decode()
    assert text.startswith(": waiting\n\n")
    assert text.endswith('event: result\ndata: {"done": true}\n\n')
