"""POST /extrapolate and POST /interpolate."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from model.bundle import Bundle
from service.settings import Settings
from tests.service.conftest import b64, fake_runner, picture, serving

PNG = {"Accept": "image/png"}
EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def two(reference_pngs: list[bytes]) -> list[str]:
    return [b64(data) for data in reference_pngs[:2]]


def post(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    parsed: dict[str, Any] = answer.json()
    return parsed


def pixels(text: str) -> np.ndarray:
    return np.asarray(picture(text), float)


def progress(client: httpx.Client, path: str, body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    answer = client.post(path, json=body, headers=EVENTS)
    assert answer.status_code == 200, answer.text
    events = [block.split("\n") for block in answer.text.strip().split("\n\n") if block.startswith("event")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in events]


def test_the_sweep_of_the_paper_is_the_default(real: httpx.Client, bundle: Bundle) -> None:
    answer = post(real, "/extrapolate", {"prototype": 20, "steps": 8, "seed": 3})
    images = answer["images"]
    assert [item["asked"] for item in images] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert answer["activations_from"] == "prior"
    assert answer["image_id"] is None
    assert bundle.statistics is not None
    low, high = bundle.statistics.low[20], bundle.statistics.high[20]
    assert (answer["low"], answer["high"]) == pytest.approx((low, high))
    assert [item["is_outside"] for item in images] == [not low <= i["asked"] <= high for i in images]
    for item in images:
        encoded = real.post("/encode", json={"image": item["image"]}).json()["images"][0]
        assert encoded["activations"] == pytest.approx(item["activations"], abs=1e-3)
        assert item["achieved"] == item["activations"][20]


def test_more_of_a_prototype_is_achieved_where_more_is_asked(real: httpx.Client, two: list[str]) -> None:
    body = {"prototype": 20, "image": two[0], "values": [0.5, 4.0, 8.0], "steps": 10}
    achieved = [item["achieved"] for item in post(real, "/extrapolate", body)["images"]]
    assert achieved == sorted(achieved)
    assert achieved[-1] > achieved[0] + 0.5


def test_a_samples_own_value_gives_what_generate_gives(real: httpx.Client) -> None:
    plain = post(real, "/generate", {"seed": 5, "steps": 6})
    body: dict[str, Any] = {"prototype": 2, "seed": 5, "steps": 6}
    before = post(real, "/extrapolate", body)["before"]
    assert before == pytest.approx(plain["activations"][0][2], abs=1e-5)
    [same] = post(real, "/extrapolate", {**body, "values": [before]})["images"]
    assert np.abs(pixels(same["image"]) - pixels(plain["images"][0]["image"])).max() <= 1


def test_an_images_own_value_gives_its_reconstruction(real: httpx.Client, two: list[str]) -> None:
    edited = post(real, "/edit", {"image": two[0], "edits": [{"prototype": 2, "op": "max"}], "rounds": 1})
    body: dict[str, Any] = {"prototype": 2, "image_id": edited["image_id"]}
    before = post(real, "/extrapolate", body)["before"]
    assert before == pytest.approx(edited["activations"]["before"][2], abs=1e-5)
    answer = post(real, "/extrapolate", {**body, "values": [before]})
    assert answer["image_id"] == edited["image_id"]
    difference = pixels(answer["images"][0]["image"]) - pixels(edited["reconstruction"])
    assert np.abs(difference).max() <= 1


def test_ends_of_an_interpolation_are_the_reconstructions(real: httpx.Client, two: list[str]) -> None:
    answer = post(real, "/interpolate", {"images": two, "num_images": 3})
    assert [item["weight"] for item in answer["images"]] == [0.0, 0.5, 1.0]
    unchanged = [{"prototype": 2, "op": "add", "value": 0.0}]
    for i, name, text in zip((0, 2), answer["image_ids"], two, strict=True):
        edited = post(real, "/edit", {"image": text, "edits": unchanged, "rounds": 1})
        assert edited["image_id"] == name
        difference = pixels(answer["images"][i]["image"]) - pixels(edited["reconstruction"])
        assert np.abs(difference).max() <= 1
    first, middle, last = (np.array(item["asked"]) for item in answer["images"])
    assert np.allclose(middle, (first + last) / 2, atol=1e-5)
    for item in answer["images"]:
        encoded = real.post("/encode", json={"image": item["image"]}).json()["images"][0]
        assert encoded["activations"] == pytest.approx(item["achieved"], abs=1e-3)


def test_two_images_are_given_in_any_one_way(
    fake: httpx.Client, two: list[str], reference_pngs: list[bytes]
) -> None:
    def shown(answer: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in answer.items() if name != "total_s"}

    body = {"steps": 2, "num_images": 4}
    first = post(fake, "/interpolate", {**body, "images": two})
    assert shown(post(fake, "/interpolate", {**body, "image_ids": first["image_ids"]})) == shown(first)
    files = [("image", data) for data in reference_pngs[:2]]
    sent = fake.post("/interpolate", files=files, data={"steps": "2", "num_images": "4"})
    assert shown(sent.json()) == shown(first)


def test_an_image_and_itself_stay_what_they_are(fake: httpx.Client, two: list[str]) -> None:
    images = post(fake, "/interpolate", {"images": [two[0]] * 2, "steps": 2, "num_images": 3})["images"]
    assert len({item["image"] for item in images}) == 1


@pytest.mark.parametrize(
    ("path", "body", "count"),
    [
        ("/extrapolate", {"prototype": 1, "steps": 1}, 7),
        ("/extrapolate", {"prototype": 1, "steps": 1, "values": [0.1 * i for i in range(20)]}, 20),
        ("/interpolate", {"steps": 1}, 7),
    ],
)
def test_png_is_a_labelled_strip(
    fake: httpx.Client, two: list[str], path: str, body: dict[str, Any], count: int
) -> None:
    given = {"images": two} if path == "/interpolate" else {}
    answer = fake.post(path, json={**body, **given}, headers=PNG)
    assert answer.headers["content-type"] == "image/png"
    shown = Image.open(io.BytesIO(answer.content))
    assert shown.width > min(count, 16) * 128
    assert shown.width < min(count, 16) * 128 + 400


def test_both_tell_how_far_they_are(fake: httpx.Client, two: list[str]) -> None:
    for path, body, count in (
        ("/extrapolate", {"prototype": 1, "image": two[0], "values": [1.0, 2.0]}, 2),
        ("/interpolate", {"images": two, "num_images": 3}, 3),
    ):
        *told, (name, result) = progress(fake, path, {**body, "steps": 11, "preview_every": 11})
        assert name == "result"
        assert len(result["images"]) == count
        last = {event["image"]: event for _, event in told if event["stage"] == "generate"}
        assert {image: event["step"] for image, event in last.items()} == dict.fromkeys(range(count), 11)
        assert all("preview" in event for event in last.values())


def test_without_statistics_nothing_is_said_to_be_outside(
    settings: Settings, bundle: Bundle, two: list[str], tmp_path: Any
) -> None:
    for source in bundle.directory.iterdir():
        (tmp_path / source.name).symlink_to(source)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for name in ("statistics", "attributes", "effects", "prior"):
        manifest[name] = None
    for name in ("pictures.safetensors", "prior.onnx"):
        del manifest["files"][name]
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with (
        serving(replace(settings, bundle=(tmp_path,)), fake_runner) as url,
        httpx.Client(base_url=url) as client,
    ):
        body: dict[str, Any] = {"prototype": 1, "values": [0.0, 9.0], "steps": 1}
        answer = post(client, "/extrapolate", {**body, "image": two[0]})
        assert (answer["low"], answer["high"]) == (None, None)
        assert [item["is_outside"] for item in answer["images"]] == [None, None]
        assert client.post("/extrapolate", json={**body, "image": two[0]}, headers=PNG).status_code == 200
        assert client.post("/extrapolate", json=body).status_code == 422


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        ("/extrapolate", {}, 422, "prototype"),
        ("/extrapolate", {"prototype": 30}, 404, "no prototype 30"),
        ("/extrapolate", {"prototype": "cuff"}, 404, "cuff"),
        ("/extrapolate", {"prototype": 1, "values": []}, 422, "values"),
        ("/extrapolate", {"prototype": 1, "values": [-0.1]}, 422, "values must be 0 to 9.21, not -0.1"),
        ("/extrapolate", {"prototype": 1, "values": [9.3]}, 422, "values must be 0 to 9.21"),
        ("/extrapolate", {"prototype": 1, "values": ["1"]}, 422, "values"),
        ("/extrapolate", {"prototype": 1, "values": [1.0] * 33}, 422, "num_images must be 1 to 32"),
        ("/extrapolate", {"prototype": 1, "steps": 201}, 422, "steps must be 1 to 200"),
        ("/extrapolate", {"prototype": 1, "image_id": "0" * 64}, 404, "image_id"),
        ("/extrapolate", {"prototype": 1, "model": "nobody"}, 404, "no model"),
        ("/interpolate", {}, 422, "give two images"),
        ("/interpolate", {"images": ["x"]}, 422, "images"),
        ("/interpolate", {"images": ["!", "!"]}, 422, "image 0"),
        ("/interpolate", {"image_ids": ["0" * 64] * 2}, 404, "image_id"),
        ("/interpolate", {"image_ids": ["0" * 64] * 3}, 422, "image_ids"),
        ("/interpolate", {"image_ids": ["0" * 64] * 2, "images": ["x", "x"]}, 422, "give two images"),
        ("/interpolate", {"image_ids": ["0" * 64] * 2, "num_images": 1}, 422, "num_images"),
        ("/interpolate", {"image_ids": ["0" * 64] * 2, "num_images": 33}, 422, "num_images"),
        ("/interpolate", {"image_ids": ["0" * 64] * 2, "preview_every": 1}, 422, "preview_every"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(
    fake: httpx.Client, path: str, body: dict[str, Any], status: int, word: str
) -> None:
    answer = fake.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert word in answer.json()["detail"]


def test_one_or_three_files_are_no_two_images(fake: httpx.Client, reference_pngs: list[bytes]) -> None:
    for count in (1, 3):
        answer = fake.post("/interpolate", files=[("image", data) for data in reference_pngs[:count]])
        assert answer.status_code in (400, 422)
        assert answer.headers["content-type"] == "application/problem+json"


def test_row_steps_are_those_that_are_taken(settings: Settings, two: list[str]) -> None:
    limited = replace(settings, max_row_steps_per_key=40)
    with serving(limited, fake_runner) as url, httpx.Client(base_url=url) as client:
        for path, body, needed in (
            ("/extrapolate", {"prototype": 1, "steps": 6}, 42),
            ("/extrapolate", {"prototype": 1, "steps": 6, "image": two[0]}, 48),
            ("/interpolate", {"steps": 6, "num_images": 5, "images": two}, 42),
        ):
            refused = client.post(path, json=body)
            assert refused.status_code == 422
            assert f"needs {needed} row-steps" in refused.json()["detail"]
            assert client.post(path, json={**body, "steps": 5}).status_code == 200
