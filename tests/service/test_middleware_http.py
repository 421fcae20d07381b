"""Limits for each key, other origins, and log lines, over real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest

from model.bundle import Bundle
from service.settings import Settings
from tests.service.conftest import b64, fake_runner, serving
from tests.service.test_http_life import GatedRunner

KEYS = ("first-key-123", "second-key-456")
FIRST, SECOND = ({"X-API-Key": key} for key in KEYS)
ORIGIN = "https://gallery.example"


@pytest.fixture
def gated(bundle: Bundle, settings: Settings) -> Iterator[tuple[str, GatedRunner]]:
    """A service that gives each key 40 row-steps, and whose steps wait for a gate."""
    runner = GatedRunner(bundle, settings.max_batch)
    with serving(replace(settings, api_keys=KEYS, max_row_steps_per_key=40), lambda *_: runner) as url:
        yield url, runner
        runner.gate.set()


@contextmanager
def running(url: str, runner: GatedRunner, body: dict[str, object]) -> Iterator[list[int]]:
    """A request of the first key that is in its first step; its status once the gate is open."""
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(httpx.post(f"{url}/generate", json=body, headers=FIRST, timeout=60).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        assert runner.entered.wait(30)
        yield statuses
    finally:
        runner.gate.set()
        thread.join(60)


def test_key_with_its_row_steps_in_flight_waits_and_others_do_not(
    gated: tuple[str, GatedRunner],
) -> None:
    url, runner = gated
    with running(url, runner, {"steps": 10, "num_images": 3}) as statuses:
        refused = httpx.post(f"{url}/generate", json={"steps": 11}, headers=FIRST)
        assert refused.status_code == 429
        assert refused.headers["retry-after"].isdecimal()
        assert refused.headers["content-type"] == "application/problem+json"
        assert "needs 11 row-steps" in refused.json()["detail"]
        assert "30 are taken" in refused.json()["detail"]
        runner.gate.set()
        assert httpx.post(f"{url}/generate", json={"steps": 40}, headers=SECOND).status_code == 200
    assert statuses == [200]
    assert httpx.post(f"{url}/generate", json={"steps": 40}, headers=FIRST).status_code == 200


def test_request_that_never_fits_into_the_row_steps_is_refused_for_good(
    gated: tuple[str, GatedRunner], reference_pngs: list[bytes]
) -> None:
    url, _ = gated
    image = b64(reference_pngs[0])
    edits = [{"prototype": 0, "op": "max"}]
    for path, body in (
        ("generate", {"steps": 21, "num_images": 2}),
        ("generate", {"steps": 21, "image": image, "x_T": "inverted"}),
        ("edit", {"steps": 14, "image": image, "edits": edits, "rounds": 1}),
        ("visualize", {"steps": 11, "prototypes": [0], "num_samples": 2}),
    ):
        answer = httpx.post(f"{url}/{path}", json=body, headers=FIRST)
        assert answer.status_code == 422, path
        assert "1 to 40 in flight" in answer.json()["detail"]


def test_client_over_its_rate_is_refused_while_health_answers(settings: Settings) -> None:
    limited = replace(settings, api_keys=KEYS, rate_limit="1/h", rate_burst=2)
    with serving(limited, fake_runner) as url:
        statuses = [httpx.get(f"{url}/version", headers=FIRST).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert httpx.get(f"{url}/version", headers=SECOND).status_code == 200
        assert httpx.get(f"{url}/version").status_code == 401
        for path in ("/healthz", "/readyz", "/metrics"):
            assert httpx.get(f"{url}{path}").status_code == 200
        metrics = httpx.get(f"{url}/metrics").text
        assert 'patronus_requests_refused_total{reason="rate"} 1.0' in metrics
        assert 'patronus_requests_refused_total{reason="key"} 1.0' in metrics


def preflight(url: str, origin: str) -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key, content-type",
    }
    return httpx.options(f"{url}/generate", headers=headers)


def test_browsers_of_the_origins_that_are_set_may_ask_and_others_may_not(settings: Settings) -> None:
    with serving(replace(settings, api_keys=KEYS, cors_origins=(ORIGIN,)), fake_runner) as url:
        asked = preflight(url, ORIGIN)  # which a browser sends without the key
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == ORIGIN
        refused = httpx.get(f"{url}/version", headers={"Origin": ORIGIN})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == ORIGIN
        assert "X-Request-ID" in refused.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in refused.headers
        other = preflight(url, "https://elsewhere.example")
        assert other.status_code == 400
        assert "access-control-allow-origin" not in other.headers


def test_no_other_origin_may_ask_unless_one_is_set(fake_url: str) -> None:
    answer = httpx.get(f"{fake_url}/version", headers={"Origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert preflight(fake_url, ORIGIN).status_code == 405
