"""POST /visualize: all prototypes at once, how consistent they are, and in pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from model.bundle import Bundle
from service.settings import Settings
from tests.service.conftest import b64, fake_runner, metric, picture, png, serving


def visualize(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/visualize", json=body)
    assert answer.status_code == 200, answer.text
    parsed: dict[str, Any] = answer.json()
    return parsed


def test_all_prototypes_are_visualized_unless_some_are_named(fake: httpx.Client, bundle: Bundle) -> None:
    found = visualize(fake, steps=1, num_samples=2)["prototypes"]
    assert [item["prototype"] for item in found] == list(range(bundle.config.num_prototypes))


def test_together_they_are_what_each_is_alone(fake: httpx.Client) -> None:
    body = {"steps": 3, "num_samples": 3, "seed": 5, "samples": True}
    together = visualize(fake, prototypes=[9, 0, 4], **body)
    for item in together["prototypes"]:
        alone = visualize(fake, prototypes=[item["prototype"]], **body)
        assert alone["prototypes"] == [item]
        assert alone["sources"] == together["sources"]


def test_consistency_can_be_reckoned_from_the_samples(real: httpx.Client) -> None:
    answer = visualize(real, prototypes=[1, 4], num_samples=4, steps=6, samples=True)
    assert len(answer["sources"]) == 4
    for item in answer["prototypes"]:
        before, after = (
            np.array([sample[f"activation_{when}"] for sample in item["samples"]])
            for when in ("before", "after")
        )
        assert item["num_sources"] == len(item["samples"]) == 4
        assert item["raised"] == (after > before).sum()
        assert item["mean_before"] == pytest.approx(before.mean(), abs=1e-5)
        assert item["mean_after"] == pytest.approx(after.mean(), abs=1e-5)
        best = item["source_index"]
        assert best == (after - before).argmax()
        assert item["rise"] == pytest.approx((after - before).max(), abs=2e-6)
        assert item["source"] == answer["sources"][best]
        assert item["enhanced"] == item["samples"][best]["image"]
        assert item["activation_after"] == item["samples"][best]["activation_after"]
        for sample in item["samples"]:
            encoded = real.post("/encode", json={"image": sample["image"]}).json()["images"][0]
            s = encoded["activations"][item["prototype"]]
            assert s == pytest.approx(sample["activation_after"], abs=1e-4)
    assert all(item["raised"] >= 3 for item in answer["prototypes"])


def test_no_prototype_is_shown_with_a_fall_where_it_rose_in_any_source(real: httpx.Client) -> None:
    """Where prototype 2 is strongest after 20 steps, it was stronger before."""
    found = visualize(real, prototypes=[2, 17, 20], num_samples=6, steps=20)["prototypes"]
    for item in found:
        is_higher = item["activation_after"] > item["activation_before"]
        assert is_higher == (item["rise"] > 0) == (item["raised"] > 0)


def test_a_prototype_that_rose_in_no_source_is_said_to(fake: httpx.Client) -> None:
    """A black picture cannot be darker, and the stand-in makes it so in one step whatever is asked."""
    black = b64(png(Image.new("L", (32, 32))))
    for item in visualize(fake, images=[black], steps=1)["prototypes"]:
        assert item["raised"] == 0
        assert item["rise"] <= 0


def test_samples_are_only_there_on_request(fake: httpx.Client) -> None:
    answer = visualize(fake, prototypes=[1], num_samples=2, steps=1)
    assert answer["sources"] is None
    assert answer["prototypes"][0]["samples"] is None


def test_given_images_are_the_sources_in_their_order(fake: httpx.Client, reference_pngs: list[bytes]) -> None:
    given = [b64(reference_pngs[i]) for i in (3, 0)]
    answer = visualize(fake, prototypes=[1], images=given, steps=1, samples=True)
    for text, source in zip(given, answer["sources"], strict=True):
        assert np.array_equal(np.asarray(picture(text)), np.asarray(picture(source)))


@pytest.mark.parametrize("prototypes", [[3], None])
def test_png_is_one_labelled_picture_of_all(fake: httpx.Client, prototypes: list[int] | None) -> None:
    body = {"prototypes": prototypes, "num_samples": 2, "steps": 1}
    answer = fake.post("/visualize", json=body, headers={"Accept": "image/png"})
    assert answer.headers["content-type"] == "image/png"
    shown = Image.open(io.BytesIO(answer.content))
    assert shown.width * shown.height > (len(prototypes) if prototypes else 30) * 3 * 128 * 128


@pytest.fixture
def bare(settings: Settings) -> Iterator[str]:
    """A service whose cache keeps nothing."""
    with serving(replace(settings, cache_bytes=0), fake_runner) as url:
        yield url


def test_sources_are_inverted_once_for_all_prototypes(bare: str) -> None:
    body = {"prototypes": [0, 1, 2], "num_samples": 4, "steps": 5}
    assert httpx.post(f"{bare}/visualize", json=body, timeout=60).status_code == 200
    assert metric(bare, "patronus_denoise_steps_total") == 5 * 4 * (3 + 1)


def test_more_work_than_the_queue_holds_is_done_in_turns(settings: Settings) -> None:
    with serving(replace(settings, max_queue=4), fake_runner) as url:
        answer = httpx.post(f"{url}/visualize", json={"num_samples": 4, "steps": 2}, timeout=60)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["prototypes"]) == 30
