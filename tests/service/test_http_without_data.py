"""A model imported without its data set, behind real HTTP: what works, and what says why it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import httpx
import numpy as np
import pytest
from PIL import Image

from model.bundle import Bundle
from service.settings import Settings
from tests.model.official_reference import official_config, random_official, write_official
from tests.service.conftest import b64, picture, png, serving
from training.import_official import import_official

M = 5


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    config = official_config(image=(1, 16, 16), num_prototypes=M)
    state = random_official(config, num_residual_blocks=1).state_dict()
    directory = write_official(tmp_path_factory.mktemp("official"), config, {"model": state})
    return import_official(directory, directory / "bundle", name="imported")


@pytest.fixture(scope="module")
def client(imported: Bundle, settings: Settings) -> Iterator[httpx.Client]:
    served = replace(settings, bundle=(imported.directory,), max_batch=4)
    with serving(served) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def image() -> str:
    rng = np.random.default_rng(0)
    return b64(png(Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8))))


def assert_refused(answer: httpx.Response, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    for word in (*words, "import the checkpoint again with --dataset and --data"):
        assert word in answer.json()["detail"]


def test_images_are_encoded(client: httpx.Client, image: str) -> None:
    answer = client.post("/encode", json={"image": image, "maps": True})
    assert answer.status_code == 200
    assert len(answer.json()["images"][0]["activations"]) == M


@pytest.mark.parametrize("x_T", ["random", "inverted"])
def test_images_are_generated_under_a_given_images_activations(
    client: httpx.Client, image: str, x_T: str
) -> None:
    answer = client.post("/generate", json={"image": image, "steps": 3, "x_T": x_T})
    assert answer.status_code == 200
    assert answer.json()["activations_from"] == "image"
    assert picture(answer.json()["images"][0]["image"]).size == (16, 16)


def test_images_are_generated_under_given_activations(client: httpx.Client) -> None:
    answer = client.post("/generate", json={"activations": [1.0] * M, "steps": 3, "num_images": 2})
    assert answer.status_code == 200
    assert answer.json()["activations_from"] == "request"


def test_generation_from_nothing_says_what_it_needs(client: httpx.Client) -> None:
    words = ("sampling without image, image_id or activations", "'imported' has none")
    assert_refused(client.post("/generate"), 422, *words)


def test_edits_are_held_within_what_an_activation_can_be(client: httpx.Client, image: str) -> None:
    edits = [{"prototype": 1, "op": "set", "value": 50.0}, {"prototype": 2, "op": "set", "value": 8.0}]
    for path in ("/edit", "/generate"):
        answer = client.post(path, json={"image": image, "edits": edits, "steps": 2})
        assert answer.status_code == 200, answer.text
        (clamped,) = answer.json()["clamped"]
        assert clamped["prototype"] == 1
        assert (clamped["low"], clamped["high"]) == (0.0, pytest.approx(9.21034, abs=1e-4))


@pytest.mark.parametrize("op", ["max", "min"])
@pytest.mark.parametrize("path", ["/edit", "/generate"])
def test_quantiles_that_nobody_measured_are_refused(
    client: httpx.Client, image: str, path: str, op: str
) -> None:
    body = {"image": image, "edits": [{"prototype": 0, "op": op}], "steps": 2}
    assert_refused(client.post(path, json=body), 422, f"edit op '{op}' needs activation statistics")


def test_visualize_takes_images_that_are_sent(client: httpx.Client, image: str) -> None:
    answer = client.post("/visualize", json={"prototypes": [3], "images": [image], "steps": 2})
    assert answer.status_code == 200
    (found,) = answer.json()["prototypes"]
    encoded = client.post("/encode", json={"image": image}).json()["images"][0]
    assert found["target"] == pytest.approx(encoded["activations"][3], abs=1e-5)


@pytest.mark.parametrize("body", [{"prototypes": [3]}, {"prototypes": [3], "num_samples": 2}])
def test_visualize_without_images_asks_for_some(client: httpx.Client, body: dict[str, object]) -> None:
    assert_refused(client.post("/visualize", json=body), 422, "keeps no images: send some as `images`")


def test_prototypes_are_listed_with_nothing_invented(client: httpx.Client) -> None:
    listed = client.get("/prototypes").json()["prototypes"]
    assert [entry["index"] for entry in listed] == list(range(M))
    unknown = ("statistics", "picture", "exemplar_box", "exemplar_similarity")
    for name in (*unknown, "attributes", "emergence_timestep", "emergence_spread", "emergence_share"):
        assert [entry[name] for entry in listed] == [None] * M
    one = client.get("/prototypes/2")
    assert one.status_code == 200
    assert one.json()["exemplar_image"] is None
    assert one.json()["patches"] is None
    assert one.json()["prototype"] == listed[2]


def test_a_picture_that_is_not_kept_is_not_found(client: httpx.Client) -> None:
    answer = client.get("/prototypes/2", headers={"Accept": "image/png"})
    assert_refused(answer, 404, "keeps no picture of prototypes")


def test_health_metrics_and_version_answer_as_ever(client: httpx.Client, imported: Bundle) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
        assert client.get(path).status_code == 200
    model = client.get("/version").json()["model"]
    assert model["digest"] == imported.digest
    assert model["provenance"]["imported_from"] == "official checkpoint"
