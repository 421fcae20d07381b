"""The service over a bundle with local, wide and global prototypes: every answer names the right box."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from model.bundle import Bundle
from model.prototype_boxes import PrototypeBoxes
from model.transforms import to_picture
from service.settings import Settings
from tests.service.conftest import b64, picture, png, serving


@pytest.fixture(scope="module")
def tiny(three_scales_bundle: Path) -> Bundle:
    return Bundle.load(three_scales_bundle)


@pytest.fixture(scope="module")
def client(settings: Settings, three_scales_bundle: Path) -> Iterator[httpx.Client]:
    with (
        serving(replace(settings, bundle=(three_scales_bundle,))) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def image(tiny: Bundle) -> str:
    assert tiny.pictures is not None
    return b64(png(to_picture(tiny.pictures.reference_images[0])))


def test_encode_gives_each_prototype_the_box_of_its_scale(
    client: httpx.Client, tiny: Bundle, image: str
) -> None:
    answer = client.post("/encode", json={"image": image, "maps": True}).json()["images"][0]
    maps, boxes = np.array(answer["similarity_maps"]), PrototypeBoxes(tiny.config)
    assert maps.shape == (6, *tiny.config.grid_shape)
    for j, patch in enumerate(answer["patches"]):
        assert tuple(patch["box"]) == boxes.box(j, int(maps[j].argmax()))
        assert patch["similarity"] == pytest.approx(maps[j].max(), abs=1e-5)
    widths = [patch["box"][2] - patch["box"][0] for patch in answer["patches"]]
    assert max(widths[:2]) <= 7
    assert max(widths[2:4]) <= 19
    assert widths[4:] == [24, 24]


@pytest.mark.parametrize("j", [1, 3, 5], ids=["local", "wide", "global"])
def test_a_prototype_shows_patches_of_its_size(client: httpx.Client, tiny: Bundle, j: int) -> None:
    answer = client.get(f"/prototypes/{j}").json()
    x0, y0, x1, y1 = answer["prototype"]["exemplar_box"]
    assert picture(answer["prototype"]["picture"]).size == (x1 - x0, y1 - y0)
    assert tiny.pictures is not None
    assert tiny.pictures.patches is not None
    sizes = [(x1 - x0, y1 - y0) for x0, y0, x1, y1 in tiny.pictures.patches.boxes[j].tolist()]
    assert [picture(patch).size for patch in answer["patches"]] == sizes


@pytest.mark.parametrize("j", [1, 3, 5], ids=["local", "wide", "global"])
def test_visualize_cuts_out_what_the_prototype_sees(client: httpx.Client, tiny: Bundle, j: int) -> None:
    body = {"prototypes": [j], "num_samples": 3, "steps": 4}
    found = client.post("/visualize", json=body).json()["prototypes"][0]
    encoded = client.post("/encode", json={"image": found["enhanced"], "maps": True}).json()["images"][0]
    cell = int(np.argmax(encoded["similarity_maps"][j]))
    assert tuple(found["box"]) == PrototypeBoxes(tiny.config).box(j, cell)
    x0, y0, x1, y1 = found["box"]
    assert picture(found["patch"]).size == (x1 - x0, y1 - y0)


def test_the_prior_draws_and_edits_reach_every_scale(client: httpx.Client) -> None:
    for j in range(6):
        body = {"seed": 3, "steps": 3, "edits": [{"prototype": j, "op": "max"}]}
        answer = client.post("/generate", json=body).json()
        assert answer["activations_from"] == "prior"
        assert len(answer["activations"][0]) == 6


def test_diagnose_knows_what_two_global_prototypes_share(client: httpx.Client) -> None:
    answer = client.post("/diagnose", json={"prototypes": [0, 4], "num_samples": 6, "steps": 2}).json()
    overlap = np.array(answer["overlap"])
    assert overlap.shape == (2, 6)
    assert overlap[1, 5] == pytest.approx(1.0)  # both see the whole image
    assert 0.0 < overlap[0, 4] < 0.2  # of which a local one sees little
