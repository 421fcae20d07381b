"""The application on a real Ray cluster: what holds with one process holds with several replicas.

Tests run in the order in which they stand, and hand the replicas on to the next.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
import yaml

from benchmarks.faults.redis_process import redis_process
from benchmarks.monitoring.prometheus_process import prometheus_process
from benchmarks.ray_cluster.process import ClusterError, RayProcess, ray_process
from service.client import AsyncClient, Client, calls
from service.client.events import Progress
from service.client.results import Generation
from service.client.retrying import Retries
from service.settings import SHIPPED_BUNDLE, Settings

SCRAPE_CONFIG = Path(__file__).parents[2] / "deploy" / "ray" / "prometheus.yml"
LONG = {"steps": 1000, "num_images": 4}
"""Seconds of work, unless it is given up."""
PATIENT = Retries(max_retries=12, first_wait_s=0.2, longest_wait_s=2.0)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayProcess]:
    """Two replicas with a Redis."""
    directory = tmp_path_factory.mktemp("ray")
    with redis_process(directory) as redis:
        asyncio.run(redis.start())
        environment = {
            "PATRONUS_BUNDLE": str(SHIPPED_BUNDLE),
            "PATRONUS_CACHE_URL": redis.url,
            "PATRONUS_MAX_BATCH": "4",
            "PATRONUS_STATE_DIR": str(directory / "state"),
            "PATRONUS_TUNE_BATCH": "off",
        }
        with ray_process(directory, environment) as cluster:
            cluster.deploy(num_replicas=2)
            cluster.until_running(2)
            yield cluster


@contextmanager
def load(cluster: RayProcess, *, clients: int, steps: int) -> Iterator[list[Generation | Exception]]:
    """Clients that ask again as soon as they are answered, until the block ends; what they were answered."""
    answers: list[Generation | Exception] = []
    is_over = Event()
    seeds = itertools.count()

    def ask() -> None:
        with Client(cluster.url, timeout_s=100.0, retries=PATIENT) as client:
            while not is_over.is_set():
                try:
                    answers.append(client.generate(steps=steps, seed=next(seeds)))
                except Exception as error:
                    answers.append(error)
                    return

    threads = [Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


async def generate_at_once(url: str, count: int, body: dict[str, Any]) -> list[httpx.Response]:
    """So many equal requests at the same time, none of them sent twice."""
    async with httpx.AsyncClient(base_url=url, timeout=100.0) as client:
        return await asyncio.gather(*(client.post("/generate", json=body) for _ in range(count)))


def models_of(answers: Sequence[Generation | Exception]) -> set[str]:
    return {answer.model.name for answer in answers if isinstance(answer, Generation)}


def images_of(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [image["image"] for image in response.json()["images"]]


OK = 'patronus_requests_total{endpoint="generate",finished_reason="ok"'
DISCONNECTED = 'patronus_requests_total{endpoint="generate",finished_reason="disconnected"'
ACTIVE = "patronus_active_samples "
WASTED = "patronus_denoise_steps_wasted_total "


def test_replicas_give_the_same_bytes_for_the_same_seed(cluster: RayProcess) -> None:
    answers: list[httpx.Response] = []
    while not all(cluster.metric(OK).values()):
        assert len(answers) < 200
        answers += asyncio.run(generate_at_once(cluster.url, 8, {"steps": 10, "seed": 5}))
    assert len({tuple(images_of(answer)) for answer in answers}) == 1
    assert sum(cluster.metric(OK).values()) == len(answers)


def test_image_encoded_by_one_replica_is_known_to_all(cluster: RayProcess) -> None:
    with Client(cluster.url) as client:
        generated = client.generate(steps=4, seed=1)
        encoded = client.encode(generated.images[0].image.png).images[0]
    before = cluster.metric(OK)
    answers: list[httpx.Response] = []
    while any(count == before[replica] for replica, count in cluster.metric(OK).items()):
        assert len(answers) < 200
        body = {"image_id": encoded.image_id, "steps": 4, "seed": 2}
        answers += asyncio.run(generate_at_once(cluster.url, 8, body))
    assert len({tuple(images_of(answer)) for answer in answers}) == 1


def test_answers_pass_the_proxy_as_they_are(cluster: RayProcess) -> None:
    with httpx.Client(base_url=cluster.url, timeout=30.0) as client:
        refused = client.post("/generate", json={"steps": 5000}, headers={"X-Request-ID": "mine"})
        assert refused.status_code == 422
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers.get_list("x-request-id") == ["mine"]
        assert refused.json()["detail"] == "steps must be 1 to 1000, not 5000"
        assert len(client.get("/readyz").headers.get_list("x-request-id")) == 1
        picture = client.post("/generate", json={"steps": 2}, headers={"Accept": "image/png"})
        assert picture.headers["content-type"] == "image/png"
        late = client.post("/generate", json=LONG, headers={"X-Request-Timeout": "0.2"})
        assert late.status_code == 504
        assert client.post("/v2/models/none/infer", json={}).json().keys() == {"error"}
        assert client.get("/metrics").status_code == 404


def test_each_replica_is_scraped_by_its_own_address(cluster: RayProcess) -> None:
    addresses = cluster.scrape_addresses()
    assert len(set(addresses.values())) == 2
    assert set(addresses) == {replica.id for replica in cluster.replicas()}
    for address in addresses.values():
        assert httpx.get(f"http://{address}/readyz").json()["engine"] == "ready"
        assert httpx.post(f"http://{address}/generate", json={}).status_code == 404


def test_prometheus_finds_and_scrapes_every_replica(cluster: RayProcess, tmp_path: Path) -> None:
    job = yaml.safe_load(SCRAPE_CONFIG.read_text())["scrape_configs"][0]
    job["http_sd_configs"][0] |= {"url": f"{cluster.url}/metrics/targets", "refresh_interval": "1s"}
    with prometheus_process(tmp_path, job) as prometheus:
        asyncio.run(prometheus.start())

        def scraped() -> set[str]:
            found = asyncio.run(
                prometheus.query('up{job="patronus"} == 1 and on (instance) patronus_build_info')
            )
            return {series.labels["instance"] for series in found}

        cluster.until(lambda: scraped() == set(cluster.scrape_addresses().values()))


def test_progress_streams_through_the_proxy(cluster: RayProcess) -> None:
    async def follow() -> list[Any]:
        async with AsyncClient(cluster.url) as client:
            call = calls.generate(steps=40, seed=5, num_images=2)
            return [event async for event in client.stream(call)]

    *progress, result = asyncio.run(follow())
    assert isinstance(result, Generation)
    assert all(isinstance(event, Progress) for event in progress)
    assert len({event.step for event in progress}) > 10  # told while it went on, not all at the end


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_client_that_leaves_is_computed_for_no_further_than_one_step(
    cluster: RayProcess, accept: str
) -> None:
    disconnected = sum(cluster.metric(DISCONNECTED).values())
    wasted = sum(cluster.metric(WASTED).values())

    async def leave() -> None:
        async with httpx.AsyncClient(base_url=cluster.url, timeout=100.0) as client:
            asking = asyncio.ensure_future(client.post("/generate", json=LONG, headers={"Accept": accept}))
            while not any((await asyncio.to_thread(cluster.metric, ACTIVE)).values()):
                assert not asking.done(), "it was done before the client left"
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    asyncio.run(leave())
    cluster.until(lambda: sum(cluster.metric(DISCONNECTED).values()) == disconnected + 1)
    cluster.until(lambda: not any(cluster.metric(ACTIVE).values()))
    assert sum(cluster.metric(WASTED).values()) - wasted <= LONG["num_images"]


def test_full_queue_is_refused_as_the_service_does(cluster: RayProcess) -> None:
    cluster.deploy(num_replicas=2, max_ongoing_requests=1, max_queued_requests=1)
    cluster.until_running(2)
    answers = asyncio.run(generate_at_once(cluster.url, 8, {"steps": 300, "seed": 1}))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < 8
    for answer in refused:
        assert answer.status_code == answer.json()["status"] == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"] == "1"
        assert len(answer.headers.get_list("x-request-id")) == 1


def test_replica_that_goes_answers_those_it_has(cluster: RayProcess) -> None:
    cluster.deploy(num_replicas=2)
    cluster.until_running(2)
    answers: list[httpx.Response] = []
    body = {"steps": 300, "num_images": 2, "seed": 3}
    asking = Thread(target=lambda: answers.extend(asyncio.run(generate_at_once(cluster.url, 8, body))))
    asking.start()
    cluster.until(lambda: all(cluster.metric(ACTIVE).values()))
    cluster.deploy(num_replicas=1)
    cluster.until(lambda: len(cluster.replicas("STOPPING")) == 1)
    going_while_asked = asking.is_alive()
    asking.join()
    assert going_while_asked, "all were answered before the replica had to go"
    assert len({tuple(images_of(answer)) for answer in answers}) == 1
    cluster.until_running(1)


def test_replica_that_goes_has_longer_than_its_requests(cluster: RayProcess) -> None:
    assert cluster.details()["grace_s"] > Settings().request_timeout_s


def test_load_brings_replicas_and_its_end_takes_them_away(cluster: RayProcess) -> None:
    autoscaling = {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 2,
        "upscale_delay_s": 0.5,
        "downscale_delay_s": 0.5,
        "look_back_period_s": 2.0,
    }
    cluster.deploy(autoscaling_config=autoscaling)
    with load(cluster, clients=8, steps=50) as answers:
        cluster.until(lambda: len(cluster.replicas()) == 2)
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    cluster.until_running(1)


def test_no_request_is_lost_to_a_replica_that_is_killed(cluster: RayProcess) -> None:
    cluster.deploy(num_replicas=2)
    cluster.until_running(2)
    unlucky: list[httpx.Response] = []
    body = {"steps": 400, "num_images": 2}
    asking = Thread(target=lambda: unlucky.extend(asyncio.run(generate_at_once(cluster.url, 6, body))))
    asking.start()
    cluster.until(lambda: any(cluster.metric(ACTIVE).values()))
    active = cluster.metric(ACTIVE)
    victim = max(cluster.replicas(), key=lambda replica: active[replica.id])
    with load(cluster, clients=6, steps=50) as answers:
        cluster.until(lambda: len(answers) > 0)
        os.kill(victim.pid, signal.SIGKILL)
        before = len(answers)
        cluster.until(lambda: len(answers) > before + 6)
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    asking.join()
    lost = [answer for answer in unlucky if answer.status_code != 200]
    assert lost
    for answer in lost:  # which the clients above send again
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert "send it again" in answer.json()["detail"]
    cluster.until(lambda: victim.id not in {replica.id for replica in cluster.replicas()})
    cluster.until_running(2)
    assert victim.id not in {replica.id for replica in cluster.replicas()}


def test_another_bundle_is_rolled_out_under_load(cluster: RayProcess, tiny_bundle: Path) -> None:
    cluster.deploy(num_replicas=1)
    cluster.until_running(1)
    with load(cluster, clients=4, steps=10) as answers:
        cluster.deploy(num_replicas=1, environment={"PATRONUS_BUNDLE": str(tiny_bundle)})
        cluster.until(lambda: "tiny model" in models_of(answers))
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    assert models_of(answers) == {"fashion-mnist", "tiny model"}


def test_bad_setting_fails_the_deployment_and_names_itself(cluster: RayProcess) -> None:
    cluster.deploy(num_replicas=1, environment={"PATRONUS_COLOUR": "red"})
    with pytest.raises(ClusterError, match="PATRONUS_COLOUR"):
        cluster.until(lambda: cluster.details()["status"] == "RUNNING")
