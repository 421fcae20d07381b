"""POST /diagnose over the whole stack, and the page that it can give."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import httpx
import numpy as np
import pytest

from model.bundle import Bundle
from service.routes.diagnosis_page import diagnosis_page
from service.routes.schemas import DiagnoseResponse
from service.settings import Settings
from tests.service.conftest import b64, fake_runner, picture, serving

EVENTS = {"Accept": "text/event-stream"}
PAGE = {"Accept": "text/html"}
SMALL = {"prototypes": [4, 2, 17], "num_samples": 6, "steps": 2}


def post(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/diagnose", json=body)
    assert answer.status_code == 200, answer.text
    parsed: dict[str, Any] = answer.json()
    return parsed


def without_time(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "total_s"}


class Page(HTMLParser):
    """Collects tags, the addresses in them, and the text that is shown."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "srcset")]
        assert not any(name.startswith("on") for name, _ in attributes)

    def handle_data(self, data: str) -> None:
        self.shown += data


def test_effects_have_a_row_for_each_prototype_asked_for_and_a_column_for_each_there_is(
    fake: httpx.Client, bundle: Bundle
) -> None:
    answer, m = post(fake, SMALL), bundle.config.num_prototypes
    assert [item["prototype"] for item in answer["interventions"]] == [4, 2, 17]
    for values in (*answer["effects"].values(), answer["overlap"]):
        assert np.shape(values) == (3, m)
    for i, j in enumerate([4, 2, 17]):
        assert answer["effects"]["p"][i][j] is None
        assert answer["effects"]["effect"][i][j] == answer["interventions"][i]["effect"]
        assert answer["interventions"][i]["asked"] > 0.0  # from its 0.01 to its 0.99 quantile
        assert answer["overlap"][i][j] == pytest.approx(1.0)
        assert answer["effects"]["data_correlation"][i][j] == pytest.approx(1.0)
    assert answer["num_pairs"] == 3 * (m - 1)
    assert answer["activations_from"] == "prior"
    assert bundle.attributes is not None
    assert answer["attributes"]["names"] == list(bundle.attributes.names)
    by_attribute = np.array(answer["attributes"]["effects"]["effect"])
    assert by_attribute.shape == (len(answer["interventions"]), len(bundle.attributes.names))
    assert answer["attributes"]["num_pairs"] == by_attribute.size
    assert answer["thresholds"] == {
        "p": 0.05,
        "leakage": 0.1,
        "data_correlation": 0.3,
        "overlap": 0.333333,
        "asked": 0.5,
    }


def test_couplings_are_entries_of_the_effects_in_rank_order_with_pictures(fake: httpx.Client) -> None:
    answer = post(fake, {**SMALL, "num_couplings": 7})
    assert len(answer["couplings"]) == 7
    for item in answer["couplings"]:
        i, k = item["intervention"], item["affected"]
        for name in ("effect", "low", "high", "p", "leakage", "data_correlation", "beyond"):
            assert item[name] == answer["effects"][name][i][k]
        assert item["overlap"] == answer["overlap"][i][k]
        assert item["prototype"] == answer["interventions"][i]["prototype"] != k
        assert item["is_established"] == (item["p"] <= 0.05) == (item["finding"] == "established")
        assert item["beyond"] == item["effect"]  # nothing was asked of another prototype
        assert picture(item["before"]).size == picture(item["after"]).size == (32, 32)
        assert 0 <= item["sample"] < 6
    least = [max(0.0, item["low"], -item["high"]) for item in answer["couplings"]]
    ranks = [
        (not item["is_established"], -value) for item, value in zip(answer["couplings"], least, strict=True)
    ]
    assert ranks == sorted(ranks)
    assert post(fake, {**SMALL, "num_couplings": 0})["couplings"] == []


def test_the_same_request_has_the_same_answer_and_another_seed_another_one(fake: httpx.Client) -> None:
    one = without_time(post(fake, SMALL))
    assert one == without_time(post(fake, SMALL))
    assert one["effects"] != post(fake, {**SMALL, "seed": 1})["effects"]


def test_edits_are_interventions_of_their_own(fake: httpx.Client) -> None:
    edits = [{"prototype": 3, "op": "add", "value": 0.5}, {"prototype": 3, "op": "set", "value": 1e5}]
    answer = post(fake, {"edits": edits, "num_samples": 6, "steps": 2})
    assert [item["edit"] for item in answer["interventions"]] == [
        {**edit, "attribute": None} for edit in edits
    ]
    assert 1e5 in [item["requested"] for item in answer["clamped"]]


def test_attributes_are_interventions_beside_prototypes_and_alone(fake: httpx.Client, bundle: Bundle) -> None:
    answer = post(fake, {**SMALL, "prototypes": [4], "attributes": ["Bag", "Coat"], "num_couplings": 100})
    which = [(item["prototype"], item["attribute"]) for item in answer["interventions"]]
    assert which == [(4, None), (None, "Bag"), (None, "Coat")]
    assert bundle.attributes is not None
    on_attributes, bag = answer["attributes"]["effects"], bundle.attributes.names.index("Bag")
    assert on_attributes["effect"][1][bag] == answer["interventions"][1]["effect"]
    assert [row[bag] for row in on_attributes["p"]][1] is None
    for effects in (answer["effects"], on_attributes):
        assert np.shape(effects["asked"]) == np.shape(effects["beyond"]) == np.shape(effects["effect"])
        assert None not in effects["asked"][1]
    assert set(answer["effects"]["asked"][0]) == {None}  # a prototype asks nothing of others,
    assert None not in on_attributes["asked"][0]  # but probes read it
    assert on_attributes["beyond"] == on_attributes["effect"]
    assert on_attributes["asked"][1][bag] == answer["interventions"][1]["asked"] > 0.0
    assert set(answer["overlap"][1]) == {None}
    for found in (answer, answer["attributes"]):
        for item in found["couplings"]:
            of_attribute = item["attribute"] is not None
            assert of_attribute == (item["prototype"] is None) == (item["box"] is None)
            assert (item["asked"] is None) == (not of_attribute and found is answer)
            assert item["finding"] != "within_asked" or item["p"] == 1.0
            assert item["attribute"] == answer["interventions"][item["intervention"]]["attribute"]
    m = bundle.config.num_prototypes
    alone = post(fake, {**SMALL, "prototypes": None, "attributes": ["Bag"]})
    assert (len(alone["interventions"]), alone["num_pairs"]) == (1, m)
    assert alone["agreement_with_data"] is None
    edit = {"prototype": None, "attribute": "Bag", "op": "max", "value": None}
    assert post(fake, {**SMALL, "prototypes": None, "edits": [edit]})["interventions"][0]["edit"] == edit


def test_a_page_names_the_attributes_that_are_changed(fake: httpx.Client) -> None:
    body = {"num_samples": 6, "steps": 2, "attributes": ["Ankle boot"]}
    page = Page(fake.post("/diagnose", json=body, headers=PAGE).text)
    assert "each attribute, one at a time, from its 0.01 to its 0.99 quantile" in page.shown
    assert page.shown.count("Ankle boot") > 5
    order = ["On labelled attributes", "On prototypes", "Own effects", "Effects on labelled", "All effects"]
    places = [page.shown.index(title) for title in order]
    assert places == sorted(places)
    assert "None" not in page.shown.replace("None established", "")


def test_images_come_as_files_or_in_base64_and_make_the_same_diagnosis(
    fake: httpx.Client, reference_pngs: list[bytes]
) -> None:
    chosen = reference_pngs[:6]
    body = {"prototypes": [4], "steps": 2}
    as_text = post(fake, {**body, "images": [b64(png) for png in chosen]})
    fields = {name: json.dumps(value) for name, value in body.items()}
    files = [("image", ("x.png", png, "image/png")) for png in chosen]
    as_files = fake.post("/diagnose", data=fields, files=files).json()
    assert as_text["activations_from"] == as_files["activations_from"] == "image"
    assert as_text["num_samples"] == 6
    assert as_text["effects"] == as_files["effects"]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"prototypes": [1], "edits": [{"prototype": 1, "op": "max"}]}, 422, "not both"),
        ({"prototypes": [1, 1]}, 422, "more than once"),
        ({"prototypes": [30]}, 404, "there is no prototype 30"),
        ({"attributes": ["beard"]}, 404, "there is no attribute 'beard'"),
        ({"edits": [{"attribute": "beard", "op": "max"}]}, 404, "there is no attribute 'beard'"),
        ({"attributes": ["Bag", "Bag"]}, 422, "more than once: Bag"),
        ({"attributes": []}, 422, "at least 1"),
        ({"attributes": ["Bag"], "edits": [{"prototype": 1, "op": "max"}]}, 422, "not both"),
        ({"edits": [{"prototype": "smile", "op": "max"}]}, 404, "smile"),
        ({"num_samples": 5}, 422, "greater than or equal to 6"),
        ({"num_samples": 33}, 422, "num_samples must be 6 to 32"),
        ({"steps": 201}, 422, "steps must be 1 to 200"),
        ({"edits": []}, 422, "at least 1"),
        ({"preview_every": 2}, 422, "preview_every"),
        ({"model": "another"}, 404, "another"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(
    fake: httpx.Client, body: dict[str, Any], status: int, reason: str
) -> None:
    answer = fake.post("/diagnose", json=body)
    assert answer.status_code == status
    assert reason in answer.json()["detail"]


def test_images_and_num_samples_exclude_each_other_and_images_must_differ(
    fake: httpx.Client, reference_pngs: list[bytes]
) -> None:
    images = [b64(png) for png in reference_pngs[:6]]
    both = fake.post("/diagnose", json={"images": images, "num_samples": 6})
    assert (both.status_code, "not both" in both.json()["detail"]) == (422, True)
    twice = fake.post("/diagnose", json={"images": [*images, images[0]], "steps": 2})
    assert (twice.status_code, "twice" in twice.json()["detail"]) == (422, True)
    few = fake.post("/diagnose", files=[("image", ("x.png", png)) for png in reference_pngs[:3]])
    assert (few.status_code, "at least 6" in few.json()["detail"]) == (422, True)


def test_all_of_it_counts_against_a_clients_row_steps(settings: Settings) -> None:
    """2 prototypes and an attribute, low and high, of 6 samples in 2 steps are 72."""
    three = {**SMALL, "prototypes": [4, 2], "attributes": ["Bag"]}
    for limit, status in ((71, 422), (72, 200)):
        with serving(replace(settings, max_row_steps_per_key=limit), fake_runner) as url:
            answer = httpx.post(f"{url}/diagnose", json=three)
            assert answer.status_code == status, answer.text
            assert status == 200 or "needs 72 row-steps" in answer.json()["detail"]


def test_a_streamed_diagnosis_tells_each_intervention_and_has_the_same_result(fake: httpx.Client) -> None:
    answer = fake.post("/diagnose", json=SMALL, headers=EVENTS)
    blocks = [block.split("\n") for block in answer.text.strip().split("\n\n") if not block.startswith(":")]
    events = [
        (name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks
    ]
    *progress, (last, result) = events
    assert last == "result"
    assert without_time(result) == without_time(post(fake, SMALL))
    assert {name for name, _ in progress} == {"progress"}
    assert {event["stage"] for _, event in progress} == {"intervene"}
    assert sorted(event["prototype"] for _, event in progress) == [2, 4, 17]
    assert sorted(event["step"] for _, event in progress) == [1, 2, 3]
    assert all(event["steps"] == 3 for _, event in progress)


def test_the_page_needs_nothing_from_elsewhere(fake: httpx.Client) -> None:
    answer = fake.post("/diagnose", json=SMALL, headers=PAGE)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = Page(answer.text)
    assert page.addresses
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not page.tags & {"script", "link", "iframe", "object", "form", "base"}
    for outside in ("http:", "https:", "@import", "url("):
        assert outside not in answer.text
    assert "prototype 17" in page.shown
    browser = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    assert fake.post("/diagnose", json=SMALL, headers=browser).headers["content-type"].startswith("text/html")
    either = fake.post("/diagnose", json=SMALL, headers={"Accept": "application/json, text/html"})
    assert either.headers["content-type"] == "application/json"


@pytest.fixture(scope="module")
def found(real: httpx.Client) -> dict[str, Any]:
    """A diagnosis of the shipped model that establishes some couplings."""
    return post(
        real, {"prototypes": [1], "attributes": ["Bag"], "num_samples": 24, "steps": 8, "num_couplings": 80}
    )


def page_of(answer: dict[str, Any]) -> Page:
    return Page(diagnosis_page(DiagnoseResponse.model_validate(answer), {}, (32, 32)))


def test_the_page_begins_with_the_strongest_coupling_of_each_kind(found: dict[str, Any]) -> None:
    shown = page_of(found).shown.partition("Own effects")[0]
    for table in (found, found["attributes"]):
        first = table["couplings"][0]
        assert first["is_established"]
        assert f"{first['effect']:+.2f} standard deviations, 95% bootstrap interval" in shown
        assert f"corrected for all {table['num_pairs']} pairs" in shown
        assert f"{table['num_established']} of {table['num_pairs']} pairs are established" in shown


def test_without_an_established_coupling_the_page_says_so_first(found: dict[str, Any]) -> None:
    couplings = [{**item, "is_established": False, "finding": "chance"} for item in found["couplings"]]
    shown = page_of({**found, "num_established": 0, "couplings": couplings, "attributes": None}).shown
    assert f"None established Of {found['num_pairs']} pairs, none" in " ".join(
        shown.partition("Own effects")[0].replace("established", "established ").split()
    )


def test_what_was_asked_and_what_goes_beyond_stand_beside_each_effect(found: dict[str, Any]) -> None:
    within = next(item for item in found["couplings"] if item["finding"] == "within_asked")
    assert (within["p"], within["beyond"], within["leakage"]) == (1.0, 0.0, 0.0)
    assert abs(within["effect"]) <= abs(within["asked"])
    shown = page_of({**found, "couplings": [within]}).shown
    assert f"{within['asked']:+.2f}" in shown
    assert "1.000within what was asked" in shown
    assert "Within what was asked, p is 1" in shown


def test_the_page_defines_its_figures_and_claims_no_cause(found: dict[str, Any]) -> None:
    shown = page_of(found).shown
    own = found["interventions"][1]
    assert f"{own['asked']:+.2f}{own['effect']:+.2f}{own['low']:+.2f} … {own['high']:+.2f}" in shown
    for definition in (
        "as a share of the own effect",
        f"corrected for all {found['num_pairs']} pairs of this table; 0.05 or less is established",
        "mean change over 24 samples",
        "95% bootstrap interval",
        "of 0.3 or more, in the direction of the effect",
        "proves no cause",
    ):
        assert definition in shown
    for claim in ("because", "explained by", "the model alone", "presumably", "Why"):
        assert claim not in shown


def test_names_on_the_page_are_text_whatever_they_hold(fake: httpx.Client) -> None:
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(1)>&amp;'
    answer = post(fake, SMALL)
    answer["model"]["name"] = evil
    for item in answer["interventions"]:
        item["name"] = evil
    for item in answer["couplings"]:
        item["name"] = item["affected_name"] = evil
    attribute = {**answer["couplings"][0], "affected_box": None, "overlap": None, "auroc": 0.9}
    answer["attributes"] = {
        "names": [evil] * len(answer["effects"]["effect"][0]),
        "effects": answer["effects"],
        "num_pairs": 1,
        "num_established": 0,
        "couplings": [attribute],
    }
    page = Page(diagnosis_page(DiagnoseResponse.model_validate(answer), {}, (32, 32)))
    assert "script" not in page.tags
    assert evil in page.shown
    assert all(address.startswith("data:") for address in page.addresses)


def test_the_shipped_model_does_what_it_is_told(real: httpx.Client) -> None:
    """Prototypes that are raised rise; the trained model couples fewer pairs than it leaves alone."""
    answer = post(real, {"prototypes": [1, 11, 21], "num_samples": 12, "steps": 4})
    for item in answer["interventions"]:
        assert item["responds"]
        assert item["low"] > 0.5
    assert answer["num_established"] < answer["num_pairs"] / 2
    assert answer["num_leaking"] <= answer["num_established"]
