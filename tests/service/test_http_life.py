"""Clients that leave, engines that break, keys, and caches, through the whole HTTP stack."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from model.bundle import Bundle
from service.engine.async_engine import BROKEN_AFTER
from service.engine.fake_runner import FakeRunner
from service.engine.runner import Runner, StepInputs, StepOutputs
from service.settings import Settings
from tests.service.conftest import eventually, fake_runner, metric, serving

Float32 = npt.NDArray[np.float32]


class GatedRunner(FakeRunner):
    """Waits at every step until `gate` is open; `entered` tells that a step has begun."""

    def __init__(self, bundle: Bundle, max_batch: int) -> None:
        super().__init__(bundle.config, max_batch=max_batch, has_prior=bundle.prior is not None)
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.num_encoded = 0

    def encode(self, x_0: Float32) -> tuple[Float32, Float32]:
        self.num_encoded += len(x_0)
        return super().encode(x_0)

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        self.entered.set()
        assert self.gate.wait(30)
        return super().denoise_step(inputs)


@pytest.fixture
def gated(bundle: Bundle, settings: Settings) -> Iterator[tuple[str, GatedRunner]]:
    runner = GatedRunner(bundle, settings.max_batch)

    def make(bundle: Bundle, settings: Settings) -> Runner:
        return runner

    with serving(replace(settings, max_queue=32, request_timeout_s=20.0), make) as url:
        yield url, runner
        runner.gate.set()


def test_client_that_leaves_stops_costing_within_one_step(gated: tuple[str, GatedRunner]) -> None:
    url, runner = gated
    parts = urlsplit(url)
    body = json.dumps({"steps": 200, "num_images": 4}).encode()
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        headers = ("Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}")
        head = "\r\n".join(["POST /generate HTTP/1.1", *headers, "", ""])
        connection.sendall(head.encode() + body)
        assert runner.entered.wait(10)
    left = 'patronus_requests_total{endpoint="generate",finished_reason="disconnected"'
    eventually(url, left, 1.0)
    runner.gate.set()
    assert httpx.post(f"{url}/generate", json={"steps": 2}).status_code == 200
    eventually(url, "patronus_active_samples", 0.0)
    assert metric(url, "patronus_denoise_steps_wasted_total") == 4.0
    assert metric(url, "patronus_denoise_steps_total") == 4.0 + 2.0


def test_full_queue_answers_503_with_retry_after(gated: tuple[str, GatedRunner]) -> None:
    url, runner = gated
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(httpx.post(f"{url}/generate", json={"steps": 1, "num_images": 32}, timeout=60))

    first = threading.Thread(target=ask)  # fills the batch
    first.start()
    assert runner.entered.wait(10)
    others = [threading.Thread(target=ask) for _ in range(3)]  # one fills the queue, two are refused
    for thread in others:
        thread.start()
    eventually(url, 'patronus_requests_total{endpoint="generate",finished_reason="rejected"', 2.0)
    assert metric(url, 'patronus_requests_rejected_total{endpoint="generate",reason="queue_full"}') == 2.0
    runner.gate.set()
    for thread in (first, *others):
        thread.join(60)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert all(answer.headers["retry-after"].isdecimal() for answer in refused)
    assert httpx.post(f"{url}/generate", json={"steps": 1}).status_code == 200


def test_request_past_its_time_answers_504(bundle: Bundle, settings: Settings) -> None:
    runner = GatedRunner(bundle, settings.max_batch)
    with serving(replace(settings, request_timeout_s=0.3, drain_timeout_s=1), lambda *_: runner) as url:
        answer = httpx.post(f"{url}/generate", json={"steps": 3}, timeout=30)
        assert answer.status_code == 504
        assert answer.headers["content-type"] == "application/problem+json"
        assert 'finished_reason="deadline"' in httpx.get(f"{url}/metrics").text
        runner.gate.set()


class BrokenRunner(FakeRunner):
    """Raises at every step."""

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        raise RuntimeError("secret detail of the device")


def test_failed_step_answers_500_without_internals_and_the_service_lives(
    bundle: Bundle, settings: Settings
) -> None:
    with serving(
        settings, lambda bundle, _: BrokenRunner(bundle.config, has_prior=bundle.prior is not None)
    ) as url:
        answer = httpx.post(f"{url}/generate", json={"steps": 3}, timeout=30)
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert httpx.get(f"{url}/readyz").status_code == 200


class DyingRunner(FakeRunner):
    """Takes the engine's thread down."""

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        raise SystemExit("the thread ends here")


def test_dead_engine_answers_503_and_says_so(bundle: Bundle, settings: Settings) -> None:
    with serving(
        settings, lambda bundle, _: DyingRunner(bundle.config, has_prior=bundle.prior is not None)
    ) as url:
        assert httpx.post(f"{url}/generate", json={"steps": 3}, timeout=30).status_code == 503
        for path in ("/healthz", "/readyz"):
            answer = httpx.get(f"{url}{path}")
            assert answer.status_code == 503
            assert "dead" in answer.text or "died" in answer.text
        assert httpx.post(f"{url}/generate", json={"steps": 3}, timeout=30).status_code == 503


def test_api_keys_guard_everything_but_health_and_metrics(settings: Settings) -> None:
    keys = ("first-key-123", "second-key-456")
    with serving(replace(settings, api_keys=keys), fake_runner) as url:
        document = httpx.get(f"{url}/openapi.json", headers={"X-API-Key": keys[0]}).json()
        assert set(document["components"]["securitySchemes"]) == {"header", "bearer"}
        assert document["paths"]["/generate"]["post"]["security"] == [{"header": []}, {"bearer": []}]
        assert "security" not in document["paths"]["/readyz"]["get"]
        for path in ("/healthz", "/readyz", "/metrics"):
            assert httpx.get(f"{url}{path}").status_code == 200
        for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer first-key-12"}):
            answer = httpx.get(f"{url}/prototypes", headers=headers)
            assert answer.status_code == 401
            assert answer.headers["content-type"] == "application/problem+json"
        assert httpx.get(f"{url}/prototypes", headers={"X-API-Key": keys[1]}).status_code == 200
        assert (
            httpx.get(f"{url}/prototypes", headers={"Authorization": f"Bearer {keys[0]}"}).status_code == 200
        )


def test_identical_requests_at_once_encode_once(
    gated: tuple[str, GatedRunner], reference_pngs: list[bytes]
) -> None:
    url, runner = gated
    runner.gate.set()
    answers: list[dict[str, object]] = []

    def ask() -> None:
        files = {"image": reference_pngs[9]}
        answers.append(httpx.post(f"{url}/encode", files=files, timeout=30).json())

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    ids = {json.dumps(answer["images"][0]["activations"]) for answer in answers}  # type: ignore[index]
    assert len(answers) == 6
    assert len(ids) == 1
    assert runner.num_encoded == 1  # by others while it was computed, or from the cache


@pytest.mark.parametrize("value", ["", "0", "0.0", "-1", "nan", "inf", "e3", "1_0", "two", "٣", "9" * 400])
def test_timeout_that_is_no_number_of_seconds_answers_400(fake: httpx.Client, value: str) -> None:
    headers = {b"X-Request-Timeout": value.encode()}
    answer = fake.post("/generate", json={"steps": 1}, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("X-Request-Timeout must be a number of seconds above 0")


def test_timeout_of_the_request_ends_it_with_504(gated: tuple[str, GatedRunner]) -> None:
    url, _ = gated
    headers = {"X-Request-Timeout": "0.25"}
    answer = httpx.post(f"{url}/generate", json={"steps": 3}, headers=headers, timeout=30)
    assert answer.status_code == 504


def test_timeout_of_the_request_cannot_exceed_that_of_the_service(bundle: Bundle, settings: Settings) -> None:
    runner = GatedRunner(bundle, settings.max_batch)
    with serving(replace(settings, request_timeout_s=0.3, drain_timeout_s=1), lambda *_: runner) as url:
        headers = {"X-Request-Timeout": "1000"}
        answer = httpx.post(f"{url}/generate", json={"steps": 3}, headers=headers, timeout=30)
        assert answer.status_code == 504
        runner.gate.set()


def test_unknown_priority_answers_400_and_names_the_known_ones(fake: httpx.Client) -> None:
    answer = fake.post("/generate", json={"steps": 1}, headers={"X-Request-Priority": "urgent"})
    assert answer.status_code == 400
    assert answer.json()["detail"] == "X-Request-Priority must be low, normal, high, not 'urgent'"


def test_hanging_step_makes_the_service_unready_until_it_returns(bundle: Bundle, settings: Settings) -> None:
    runner = GatedRunner(bundle, settings.max_batch)
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(httpx.post(f"{url}/generate", json={"steps": 3}, timeout=60))

    with serving(replace(settings, step_timeout_s=1.0), lambda *_: runner) as url, httpx.Client() as client:
        waiting = threading.Thread(target=ask)
        waiting.start()
        assert runner.entered.wait(10)
        for _ in range(20_000):
            readiness = client.get(f"{url}/readyz")
            if readiness.status_code == 503:
                break
        assert re.fullmatch(r"a step has been running for \d+ s, expected .+ s", readiness.json()["reason"])
        assert readiness.json()["engine"] == "hanging"
        assert client.get(f"{url}/healthz").status_code == 503
        refused = client.post(f"{url}/generate", json={"steps": 3})
        assert refused.status_code == 503
        assert refused.headers["retry-after"].isdecimal()
        runner.gate.set()
        waiting.join(30)
        assert answers[0].status_code == 200
        assert client.get(f"{url}/readyz").status_code == 200
        assert client.post(f"{url}/generate", json={"steps": 3}).status_code == 200


def test_device_on_which_everything_fails_is_neither_ready_nor_alive(
    bundle: Bundle, settings: Settings
) -> None:
    with serving(settings, lambda bundle, settings: BrokenRunner(bundle.config)) as url:
        body = {"steps": 1, "activations": [1.0] * bundle.config.num_prototypes}
        for _ in range(BROKEN_AFTER):
            assert httpx.get(f"{url}/readyz").status_code == 200
            assert httpx.post(f"{url}/generate", json=body).status_code == 500
        for path in ("/readyz", "/healthz"):
            answer = httpx.get(f"{url}{path}")
            assert answer.status_code == 503
            assert answer.json()["reason"] == f"the last {BROKEN_AFTER} calls of the network failed"


def test_bodies_that_are_still_coming_are_bounded_together(settings: Settings) -> None:
    bounded = replace(settings, max_body_bytes=1_000_000, max_bodies_bytes=1_500_000)
    with serving(bounded, fake_runner) as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port)) as slow:
            lines = ("Host: x", "Content-Type: application/json", "Content-Length: 1000000")
            slow.sendall("\r\n".join(["POST /encode HTTP/1.1", *lines, "", ""]).encode() + b" " * 999_999)
            for _ in range(400):  # until it has arrived
                large = httpx.post(f"{url}/encode", content=b" " * 600_000, timeout=30)
                if large.status_code == 503:
                    break
            assert large.status_code == 503
            assert large.headers["retry-after"].isdecimal()
            assert httpx.post(f"{url}/generate", json={"steps": 1}).status_code == 200
            slow.sendall(b" ")
            assert slow.recv(12).startswith(b"HTTP/1.1 4")
        assert httpx.post(f"{url}/encode", content=b" " * 600_000).status_code == 415
