"""Several bundles behind one service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from model.bundle import Bundle
from service.app import create_app
from service.settings import Settings, SettingsError
from tests.service.conftest import b64, eventually, metric, serving


@pytest.fixture(scope="module")
def both(settings: Settings, tiny_prior_bundle: Path) -> Iterator[httpx.Client]:
    """The shipped bundle, and beside it a tiny one with other shapes."""
    with (
        serving(replace(settings, bundle=(*settings.bundle, tiny_prior_bundle))) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def tiny(tiny_prior_bundle: Path) -> Bundle:
    return Bundle.load(tiny_prior_bundle)


def test_models_are_listed_with_the_default_first(both: httpx.Client, bundle: Bundle, tiny: Bundle) -> None:
    listed = both.get("/models").json()["models"]
    assert [(item["name"], item["digest"], item["is_default"]) for item in listed] == [
        (bundle.name, bundle.digest, True),
        (tiny.name, tiny.digest, False),
    ]
    assert [item["num_prototypes"] for item in listed] == [
        bundle.config.num_prototypes,
        tiny.config.num_prototypes,
    ]
    assert both.get("/version").json()["models"] == listed


def test_model_field_chooses_who_answers(
    both: httpx.Client, bundle: Bundle, tiny: Bundle, reference_pngs: list[bytes]
) -> None:
    for asked, model in ((None, bundle), (bundle.name, bundle), (tiny.name, tiny)):
        chosen = {} if asked is None else {"model": asked}
        m = model.config.num_prototypes
        for path, body in (
            ("/generate", {"steps": 2}),
            ("/encode", {"image": b64(reference_pngs[0])}),
            (
                "/edit",
                {"image": b64(reference_pngs[0]), "edits": [{"prototype": 0, "op": "max"}], "steps": 2},
            ),
            ("/visualize", {"prototypes": [0], "images": [b64(reference_pngs[0])], "steps": 2}),
            ("/locate", {"image": b64(reference_pngs[0])}),
            ("/extrapolate", {"prototype": 0, "image": b64(reference_pngs[0]), "steps": 2}),
            ("/interpolate", {"images": [b64(data) for data in reference_pngs[:2]], "steps": 2}),
        ):
            answer = both.post(path, json={**body, **chosen})
            assert answer.status_code == 200, answer.text
            assert answer.json()["model"] == {"name": model.name, "digest": model.digest}
        assert len(both.post("/generate", json={"steps": 2, **chosen}).json()["activations"][0]) == m
        assert len(both.get("/prototypes", params=chosen).json()["prototypes"]) == m
        assert both.get("/prototypes/0", params=chosen).json()["model"]["name"] == model.name


def test_names_are_those_of_one_model(both: httpx.Client, bundle: Bundle, tiny: Bundle) -> None:
    for model, name in ((bundle, "sleeve"), (tiny, "hem")):
        both.put("/prototypes/1", json={"name": name, "model": model.name}).raise_for_status()
    for model, name in ((bundle, "sleeve"), (tiny, "hem")):
        shown = both.get("/prototypes/1", params={"model": model.name}).json()
        assert (shown["model"]["name"], shown["prototype"]["name"]) == (model.name, name)
    for model in (bundle, tiny):
        both.put("/prototypes/1", params={"model": model.name}, json={"name": None}).raise_for_status()


def test_model_may_be_a_form_field(both: httpx.Client, tiny: Bundle, reference_pngs: list[bytes]) -> None:
    answer = both.post("/encode", files={"image": reference_pngs[0]}, data={"model": tiny.name})
    assert answer.json()["model"]["name"] == tiny.name


def test_unknown_model_is_404_and_the_known_ones_are_named(both: httpx.Client, tiny: Bundle) -> None:
    for answer in (
        both.post("/generate", json={"model": "nobody"}),
        both.get("/prototypes", params={"model": "nobody"}),
    ):
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert tiny.name in answer.json()["detail"]


def test_requests_are_counted_by_model_and_steps_add_up(both: httpx.Client, tiny: Bundle) -> None:
    url = str(both.base_url).rstrip("/")
    labels = f'endpoint="generate",finished_reason="ok",model_name="{tiny.name}"'
    requests_before = metric(url, f"patronus_requests_total{{{labels}}}")
    steps_before = metric(url, "patronus_denoise_steps_total")
    assert both.post("/generate", json={"steps": 3, "model": tiny.name}).status_code == 200
    assert both.post("/generate", json={"steps": 4}).status_code == 200
    assert metric(url, f"patronus_requests_total{{{labels}}}") == requests_before + 1
    assert metric(url, "patronus_denoise_steps_total") == steps_before + 7
    eventually(url, "patronus_active_samples", 0.0)


def test_two_bundles_of_one_name_stop_start_up(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="different models"):
        create_app(replace(settings, bundle=settings.bundle * 2))
