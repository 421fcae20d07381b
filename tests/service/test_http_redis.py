"""Services that share a Redis, and what they do without it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from service.settings import Settings
from tests.service.conftest import fake_runner, metric, serving
from tests.service.redis_process import Server

PATIENT_MS = 10_000
"""A time-out that a busy machine does not reach."""
IMPATIENT_MS = 100
MAX_TRIES = 500


@pytest.fixture
def impatient(server: Server, settings: Settings) -> Iterator[str]:
    with serving(replace(settings, cache_url=server.url, cache_timeout_ms=IMPATIENT_MS), fake_runner) as url:
        yield url


@pytest.fixture
def two_services(server: Server, settings: Settings) -> Iterator[tuple[str, str]]:
    shared = replace(settings, cache_url=server.url, cache_timeout_ms=PATIENT_MS)
    with serving(shared, fake_runner) as first, serving(shared, fake_runner) as second:
        yield first, second


def is_cached(url: str, data: bytes) -> bool:
    answer = httpx.post(f"{url}/encode", files={"image": data})
    assert answer.status_code == 200, answer.text
    cached: bool = answer.json()["images"][0]["cached"]
    return cached


def cache_errors(url: str) -> float:
    return metric(url, "patronus_cache_errors_total")


def hits_again(url: str, data: bytes) -> bool:
    """Whether the cache is in use again after a while: the pause of its circuit, and a probe."""
    return any(is_cached(url, data) for _ in range(MAX_TRIES))


def test_what_one_service_encoded_the_other_knows(
    two_services: tuple[str, str], reference_pngs: list[bytes]
) -> None:
    first, second = two_services
    assert is_cached(first, reference_pngs[0]) is False
    assert is_cached(second, reference_pngs[0]) is True
    image_id = httpx.post(f"{first}/encode", files={"image": reference_pngs[1]}).json()["images"][0][
        "image_id"
    ]
    assert httpx.post(f"{second}/generate", json={"image_id": image_id, "steps": 1}).status_code == 200


def test_wrong_bytes_under_every_key_are_counted_and_computed_anew(
    two_services: tuple[str, str], server: Server, reference_pngs: list[bytes]
) -> None:
    first, _ = two_services
    right = httpx.post(f"{first}/encode", files={"image": reference_pngs[2]}).json()["images"][0]
    with server.client() as client:
        keys = client.keys("*")
        assert keys
        for key in keys:
            client.set(key, b"rubbish")
    again = httpx.post(f"{first}/encode", files={"image": reference_pngs[2]}).json()["images"][0]
    assert again["cached"] is False
    assert again["activations"] == right["activations"]
    assert cache_errors(first) >= 1


def test_requests_are_answered_while_redis_is_down(
    two_services: tuple[str, str], server: Server, reference_pngs: list[bytes]
) -> None:
    first, _ = two_services
    assert is_cached(first, reference_pngs[3]) is False
    server.kill()
    assert is_cached(first, reference_pngs[3]) is False
    assert httpx.post(f"{first}/generate", json={"steps": 2}).status_code == 200
    assert cache_errors(first) >= 1
    assert httpx.get(f"{first}/readyz").status_code == 200


def test_frozen_redis_is_left_alone_and_used_again_when_it_thaws(
    impatient: str, server: Server, reference_pngs: list[bytes]
) -> None:
    is_cached(impatient, reference_pngs[4])
    assert hits_again(impatient, reference_pngs[4])
    assert metric(impatient, "patronus_cache_circuit_open ") == 0.0
    server.freeze()
    for _ in range(3):
        assert is_cached(impatient, reference_pngs[4]) is False
    assert metric(impatient, "patronus_cache_circuit_open ") == 1.0
    assert cache_errors(impatient) >= 3
    assert httpx.post(f"{impatient}/generate", json={"steps": 2}).status_code == 200
    assert httpx.get(f"{impatient}/readyz").status_code == 200
    server.thaw()
    assert hits_again(impatient, reference_pngs[4])
    assert metric(impatient, "patronus_cache_circuit_open ") == 0.0


def test_redis_that_comes_back_empty_is_filled_anew(
    two_services: tuple[str, str], server: Server, reference_pngs: list[bytes]
) -> None:
    first, second = two_services
    assert is_cached(first, reference_pngs[5]) is False
    server.kill()
    for _ in range(3):
        assert is_cached(first, reference_pngs[5]) is False
    assert metric(first, "patronus_cache_circuit_open ") == 1.0
    misses = metric(first, "patronus_cache_misses_total")
    server.start()
    assert hits_again(first, reference_pngs[5])
    assert metric(first, "patronus_cache_misses_total") > misses
    assert is_cached(second, reference_pngs[5]) is True


def test_memory_has_no_circuit_to_open(fake_url: str) -> None:
    assert "patronus_cache_circuit_open 0.0" in httpx.get(f"{fake_url}/metrics").text
