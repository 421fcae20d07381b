"""POST /locate: where prototypes are in an image."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from model.bundle import Bundle
from model.pixel_map import pixel_maps
from model.prototype_boxes import PrototypeBoxes
from model.transforms import to_picture
from service.pipeline.location import NUM_NOTABLE, notable_prototypes
from service.settings import Settings
from tests.service.conftest import b64, picture, png, serving


def locate(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/locate", json=body)
    assert answer.status_code == 200, answer.text
    parsed: dict[str, Any] = answer.json()
    return parsed


@pytest.fixture(scope="module")
def image(reference_pngs: list[bytes]) -> str:
    return b64(reference_pngs[1])


def test_by_default_the_most_unusual_prototypes_are_shown(
    real: httpx.Client, bundle: Bundle, image: str
) -> None:
    found = locate(real, image=image)["prototypes"]
    s = np.array(real.post("/encode", json={"image": image}).json()["images"][0]["activations"])
    assert bundle.statistics is not None
    z = (s - bundle.statistics.mean) / bundle.statistics.std
    assert [item["prototype"] for item in found] == np.argsort(-np.abs(z))[:8].tolist()
    for item in found:
        assert item["activation"] == pytest.approx(s[item["prototype"]], abs=1e-5)
        assert item["z"] == pytest.approx(z[item["prototype"]], abs=1e-3)


def test_box_centre_and_map_are_of_the_same_place(real: httpx.Client, bundle: Bundle, image: str) -> None:
    answer = locate(real, image=image, prototypes=[7, 2], maps=True)
    encoded = real.post("/encode", json={"image": image, "maps": True}).json()["images"][0]
    assert answer["image_id"] == encoded["image_id"]
    assert [item["prototype"] for item in answer["prototypes"]] == [7, 2]
    for item in answer["prototypes"]:
        j = item["prototype"]
        assert item["box"] == encoded["patches"][j]["box"]
        x, y = item["centre"]
        x0, y0, x1, y1 = item["box"]
        assert x0 <= x < x1
        assert y0 <= y < y1
        shown = np.array(item["map"])
        expected = pixel_maps(np.array(encoded["similarity_maps"][j], np.float32), bundle.config)
        assert np.allclose(shown, expected, atol=1e-5)
        assert shown[y, x] > np.quantile(shown, 0.9)


def test_overlays_are_large_and_maps_only_there_on_request(real: httpx.Client, image: str) -> None:
    for item in locate(real, image=image)["prototypes"]:
        assert picture(item["overlay"]).size == (256, 256)
        assert item["map"] is None


def test_an_image_is_a_file_base64_or_one_of_before(
    real: httpx.Client, image: str, reference_pngs: list[bytes]
) -> None:
    first = locate(real, image=image, prototypes=[3])
    assert locate(real, image_id=first["image_id"], prototypes=[3]) == first
    sent = real.post("/locate", files={"image": reference_pngs[1]}, data={"prototypes": "[3]"})
    assert sent.json() == first


def test_png_is_one_labelled_picture(real: httpx.Client, image: str) -> None:
    for prototypes in ([3], list(range(30))):
        answer = real.post(
            "/locate", json={"image": image, "prototypes": prototypes}, headers={"Accept": "image/png"}
        )
        assert answer.headers["content-type"] == "image/png"
        shown = Image.open(io.BytesIO(answer.content))
        assert shown.width * shown.height > len(prototypes) * 256 * 256


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({}, 422, "give an image"),
        ({"prototypes": []}, 422, "prototypes"),
        ({"prototypes": [1, 1]}, 422, "more than once: [1]"),
        ({"prototypes": [30]}, 404, "no prototype 30"),
        ({"prototypes": ["collar"]}, 404, "collar"),
        ({"maps": 1}, 422, "maps"),
        ({"image_id": "0" * 64}, 404, "image_id"),
        ({"model": "nobody"}, 404, "no model"),
    ],
)
def test_what_cannot_be_located_is_refused_with_the_reason(
    fake: httpx.Client, body: dict[str, Any], status: int, word: str
) -> None:
    answer = fake.post("/locate", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert word in answer.json()["detail"]


def test_without_statistics_the_most_active_are_shown() -> None:
    s = np.arange(12, dtype=np.float32)[::-1] % 7
    found = notable_prototypes(s, None)
    assert len(found) == NUM_NOTABLE
    assert s[found].tolist() == sorted(s.tolist(), reverse=True)[:8]


@pytest.fixture(scope="module")
def tiny(three_scales_bundle: Path) -> Bundle:
    return Bundle.load(three_scales_bundle)


@pytest.fixture(scope="module")
def three_scales(settings: Settings, three_scales_bundle: Path) -> Iterator[httpx.Client]:
    served = replace(settings, bundle=(three_scales_bundle,))
    with serving(served) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def test_prototypes_of_every_scale_are_located(three_scales: httpx.Client, tiny: Bundle) -> None:
    assert tiny.pictures is not None
    image = b64(png(to_picture(tiny.pictures.reference_images[0])))
    found = locate(three_scales, image=image, prototypes=[0, 1, 2, 3, 4, 5])["prototypes"]
    height, width = tiny.config.image.height, tiny.config.image.width
    for item in found:
        x0, y0, x1, y1 = item["box"]
        x, y = item["centre"]
        assert x0 <= x < x1
        assert y0 <= y < y1
    assert [item["box"] for item in found[4:]] == [[0, 0, width, height]] * 2
    assert [item["centre"] for item in found[4:]] == [[width // 2, height // 2]] * 2


def test_a_patch_whose_box_is_whole_has_its_centre_in_its_middle(tiny: Bundle) -> None:
    boxes, config = PrototypeBoxes(tiny.config), tiny.config
    rows, columns = config.grid_shape
    whole = {}
    for j, scale in enumerate(boxes.scales):
        sizes = [boxes.box(j, cell)[2] - boxes.box(j, cell)[0] for cell in range(rows * columns)]
        for cell in range(rows * columns):
            x0, y0, x1, y1 = boxes.box(j, cell)
            if x1 - x0 == y1 - y0 == max(sizes):
                whole[scale] = cell
                x, y = boxes.centre(j, cell)
                assert abs(x - (x0 + x1 - 1) / 2) <= 0.5
                assert abs(y - (y0 + y1 - 1) / 2) <= 0.5
    assert set(whole) == {"local", "wide", "global"}
