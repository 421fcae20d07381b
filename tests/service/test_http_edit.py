"""POST /edit: what is held, where it starts, how it inverts, over the shipped model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from model.bundle import MANIFEST, Bundle
from service.settings import Settings
from tests.service.conftest import b64, fake_runner, metric, picture, png, serving

RAISED = [{"prototype": 0, "op": "max"}]
UNCHANGED = [{"prototype": 0, "op": "add", "value": 0.0}]


@pytest.fixture(scope="module")
def image(reference_pngs: list[bytes]) -> str:
    return b64(reference_pngs[0])


def post(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/edit", json=body)
    assert answer.status_code == 200, answer.text
    parsed: dict[str, Any] = answer.json()
    return parsed


def test_edit_without_options_takes_the_whole_way_and_holds_nothing(real: httpx.Client, image: str) -> None:
    answer = post(real, {"image": image, "edits": RAISED, "steps": 10, "rounds": 1})
    assert answer["preserved"] == []
    assert answer["start_timestep"] == 999
    assert answer["network_calls"] == 10 + 10 + 10  # inversion, reconstruction, one round


def test_leakage_can_be_reckoned_from_the_activations(real: httpx.Client, bundle: Bundle, image: str) -> None:
    answer = post(real, {"image": image, "edits": RAISED, "steps": 6, "preserve": "others"})
    assert bundle.statistics is not None
    s = {name: np.array(values) for name, values in answer["activations"].items()}
    change = np.abs(s["achieved"] - s["before"]) / bundle.statistics.std
    assert answer["leakage"] == pytest.approx(change[1:].mean(), abs=1e-4)
    assert answer["preserved"] == list(range(1, 30))


def test_preserving_others_leaks_less_over_some_images(
    real: httpx.Client, reference_pngs: list[bytes]
) -> None:
    def leakage(preserve: Any) -> float:
        bodies = [
            {"image": b64(data), "edits": RAISED, "steps": 10, "rounds": 3, "preserve": preserve}
            for data in reference_pngs[:6]
        ]
        return float(np.mean([post(real, body)["leakage"] for body in bodies]))

    assert leakage("others") < leakage([])


def test_a_start_changes_less_of_the_image_and_takes_fewer_calls(real: httpx.Client, image: str) -> None:
    whole = post(real, {"image": image, "edits": RAISED, "steps": 20, "rounds": 1})
    part = post(real, {"image": image, "edits": RAISED, "steps": 20, "rounds": 1, "start": 300})
    assert (whole["start_timestep"], part["start_timestep"]) == (999, 299)
    assert (whole["network_calls"], part["network_calls"]) == (60, 18)

    def change(answer: dict[str, Any]) -> float:
        pictures = [np.asarray(picture(text), float) for text in (answer["image"], image)]
        return float(np.abs(pictures[0] - pictures[1]).mean())

    assert change(part) < change(whole)


@pytest.mark.parametrize("start", [300, "full"])
def test_bdia_gives_the_picture_back_where_nothing_is_edited(
    real: httpx.Client, image: str, start: int | str
) -> None:
    body = {"image": image, "edits": UNCHANGED, "steps": 20, "start": start}
    exact, ddim = (post(real, {**body, "inversion": inversion}) for inversion in ("bdia", "ddim"))
    for answer, is_exact in ((exact, True), (ddim, False)):
        same = np.array_equal(np.asarray(picture(answer["reconstruction"])), np.asarray(picture(image)))
        assert same == is_exact
    assert exact["image"] == exact["reconstruction"]
    assert exact["leakage"] == pytest.approx(0.0, abs=1e-4)


def test_bdia_edits_raise_a_prototype_as_well(real: httpx.Client, image: str) -> None:
    s = post(real, {"image": image, "edits": RAISED, "inversion": "bdia"})["activations"]
    assert s["achieved"][0] > s["before"][0] + 0.5 * (s["asked"][0] - s["before"][0])


def test_network_calls_are_the_steps_that_a_new_image_takes(
    fake_url: str, fake: httpx.Client, noise_picture: Image.Image
) -> None:
    before = metric(fake_url, "patronus_denoise_steps_total")
    body = {"image": b64(png(noise_picture)), "edits": RAISED, "steps": 10, "start": 500, "rounds": 2}
    answer = post(fake, {**body, "preserve": [1, 2], "inversion": "bdia"})
    assert answer["network_calls"] == metric(fake_url, "patronus_denoise_steps_total") - before


@pytest.mark.parametrize(
    ("fields", "status", "word"),
    [
        ({"preserve": [0]}, 422, "both edited and to be preserved"),
        ({"preserve": [1, 1]}, 422, "more than once"),
        ({"preserve": [30]}, 404, "no prototype 30"),
        ({"preserve": ["cuff"]}, 404, "cuff"),
        ({"preserve": "all"}, 422, "preserve"),
        ({"preserve": 1}, 422, "preserve"),
        ({"preserve": [1.5]}, 422, "preserve"),
        ({"preserve": None}, 422, "preserve"),
        ({"preserve": [True]}, 422, "preserve"),
        ({"preserve": "others", "rounds": 1}, 422, "rounds of at least 2"),
        ({"start": 48}, 422, "start must be 49 to 999 with 20 steps of ddim, not 48"),
        ({"start": 1000}, 422, "start must be 49 to 999"),
        ({"start": -1}, 422, "start"),
        ({"start": 10**30}, 422, "start"),
        ({"start": 500.0}, 422, "start"),
        ({"start": "half"}, 422, "start"),
        ({"start": True}, 422, "start"),
        ({"start": 60, "inversion": "bdia"}, 422, "start must be 99 to 999 with 20 steps of bdia"),
        ({"steps": 1, "inversion": "bdia"}, 422, "steps must be 2"),
        ({"inversion": "edict"}, 422, "inversion"),
        ({"edits": [{"prototype": 99, "op": "max"}]}, 404, "no prototype 99"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(
    fake: httpx.Client, image: str, fields: dict[str, Any], status: int, word: str
) -> None:
    answer = fake.post("/edit", json={"image": image, "edits": RAISED, "steps": 20, **fields})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert word in answer.json()["detail"]


def test_options_are_read_from_a_form(fake: httpx.Client, reference_pngs: list[bytes]) -> None:
    data = {"edits": json.dumps(RAISED), "preserve": "others", "start": "500", "inversion": "bdia"}
    answer = fake.post("/edit", files={"image": reference_pngs[0]}, data={**data, "steps": "10"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["start_timestep"] == 499
    assert answer.json()["preserved"] == list(range(1, 30))
    some = fake.post("/edit", files={"image": reference_pngs[0]}, data={**data, "preserve": "[4, 2]"})
    assert some.json()["preserved"] == [2, 4]


@pytest.fixture(scope="module")
def emerging(
    bundle: Bundle, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A bundle that says of prototype 0 that it emerges at 310, and of prototype 1 nothing."""
    directory = tmp_path_factory.mktemp("emerging")
    for source in bundle.directory.iterdir():
        (directory / source.name).symlink_to(source)
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest["prototypes"][:2] = [{"emergence_timestep": 310}, {"emergence_timestep": None}]
    (directory / MANIFEST).unlink()
    (directory / MANIFEST).write_text(json.dumps(manifest))
    served = replace(settings, bundle=(directory,))
    with serving(served, fake_runner) as url, httpx.Client(base_url=url) as client:
        yield client


def test_auto_starts_where_the_bundle_says_that_the_prototype_emerges(
    emerging: httpx.Client, image: str
) -> None:
    body = {"image": image, "edits": RAISED, "start": "auto", "steps": 10, "rounds": 1}
    answer = post(emerging, body)
    assert answer["start_timestep"] == 399
    assert answer["network_calls"] == 3 * 4


def test_auto_is_refused_where_the_bundle_does_not_say_it(emerging: httpx.Client, image: str) -> None:
    edits = [*RAISED, {"prototype": 1, "op": "max"}]
    answer = emerging.post("/edit", json={"image": image, "edits": edits, "start": "auto"})
    assert answer.status_code == 422
    assert "does not say it of [1]" in answer.json()["detail"]


def test_row_steps_are_those_of_the_way_that_is_taken(settings: Settings, image: str) -> None:
    limited = replace(settings, max_row_steps_per_key=60)
    with serving(limited, fake_runner) as url, httpx.Client(base_url=url) as client:
        body = {"image": image, "edits": RAISED, "steps": 20, "rounds": 2}
        refused = client.post("/edit", json=body)
        assert refused.status_code == 422
        assert "needs 80 row-steps" in refused.json()["detail"]
        assert client.post("/edit", json={**body, "start": 500}).status_code == 200


def test_progress_of_a_part_of_the_way_counts_its_own_steps(fake: httpx.Client, image: str) -> None:
    body = {"image": image, "edits": RAISED, "steps": 10, "start": 500, "inversion": "bdia"}
    answer = fake.post("/edit", json={**body, "preserve": "others"}, headers={"Accept": "text/event-stream"})
    blocks = [block.split("\n") for block in answer.text.strip().split("\n\n") if block.startswith("event")]
    progress = [json.loads(data[6:]) for name, data in blocks if name == "event: progress"]
    assert blocks[-1][0] == "event: result"
    steps = {event["stage"]: event["steps"] for event in progress}
    assert {name: count for name, count in steps.items() if name != "invert"} == {"generate": 4, "correct": 4}
    assert steps.get("invert", 5) == 5  # not told where the cache knew it
