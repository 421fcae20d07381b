"""Edits of attributes over HTTP, and from the client and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from model.bundle import Bundle
from service.cli import main
from service.cli.edits import EditType
from service.client import Client, Edit
from tests.service.conftest import b64

BAG = {"attribute": "Bag", "op": "max"}


@pytest.fixture(scope="module")
def image(reference_pngs: list[bytes]) -> str:
    return b64(reference_pngs[0])


def log_odds(bundle: Bundle, s: list[float], name: str) -> float:
    assert bundle.attributes is not None
    assert bundle.statistics is not None
    k = bundle.attributes.names.index(name)
    return float(bundle.attributes.probe_logits(np.array([s], np.float32), bundle.statistics)[0, k])


def test_attributes_are_listed_with_their_reach(real: httpx.Client, bundle: Bundle) -> None:
    assert bundle.attributes is not None
    listed = real.get("/prototypes").json()["attributes"]
    assert [attribute["name"] for attribute in listed] == list(bundle.attributes.names)
    for attribute in listed:
        assert attribute["low"] < attribute["high"]
        assert 0.5 < attribute["auroc"] <= 1.0
        assert attribute["prototypes"]


def test_an_edited_attribute_comes_nearer_to_what_was_asked(
    real: httpx.Client, bundle: Bundle, image: str
) -> None:
    answer = real.post("/edit", json={"image": image, "edits": [BAG], "steps": 20}).json()
    (bag,) = answer["attributes"]
    assert bag["name"] == "Bag"
    for moment in ("before", "asked", "achieved", "reconstruction"):
        assert bag[moment] == pytest.approx(log_odds(bundle, answer["activations"][moment], "Bag"), abs=0.01)
    assert abs(bag["asked"] - bag["achieved"]) < abs(bag["asked"] - bag["before"])
    assert answer["activations"]["asked"] != answer["activations"]["before"]


@pytest.mark.parametrize("edit", [BAG, {"prototype": 21, "op": "max"}])
def test_an_edit_says_what_it_did_to_every_other_attribute(
    real: httpx.Client, bundle: Bundle, image: str, edit: dict[str, Any]
) -> None:
    answer = real.post("/edit", json={"image": image, "edits": [edit], "steps": 10}).json()
    assert bundle.attributes is not None
    others = answer["other_attributes"]
    edited = {attribute["name"] for attribute in answer["attributes"]}
    assert {other["name"] for other in others} == set(bundle.attributes.names) - edited
    for other in others:
        for moment in ("before", "asked", "achieved", "reconstruction"):
            expected = log_odds(bundle, answer["activations"][moment], other["name"])
            assert other[moment] == pytest.approx(expected, abs=0.01)
    assert any(other["is_notable"] for other in others)
    assert all(abs(other["change"]) >= 0.5 for other in others if other["is_notable"])


def test_prototypes_that_an_attribute_moves_are_held_where_it_puts_them(
    real: httpx.Client, image: str
) -> None:
    body = {"image": image, "edits": [BAG], "steps": 6, "preserve": "others", "rounds": 2}
    answer = real.post("/edit", json=body).json()
    assert answer["preserved"] == list(range(30))
    asked, achieved = (np.array(answer["activations"][name]) for name in ("asked", "achieved"))
    assert answer["leakage"] > 0.0
    assert np.abs(asked - achieved).mean() > 0.0


def test_held_attributes_move_less(real: httpx.Client, bundle: Bundle, image: str) -> None:
    held = ["Trouser", "Sneaker"]
    body = {"image": image, "edits": [BAG], "steps": 10, "rounds": 2}
    answers = [
        real.post("/edit", json={**body, **more}).json() for more in ({}, {"preserve_attributes": held})
    ]
    assert [answer["preserved_attributes"] for answer in answers] == [[], held]
    drifts = [
        sum(
            abs(
                log_odds(bundle, answer["activations"]["asked"], name)
                - log_odds(bundle, answer["activations"]["before"], name)
            )
            for name in held
        )
        for answer in answers
    ]
    assert drifts[1] < 0.5 * drifts[0]


def test_attributes_are_held_in_an_edit_of_a_prototype(real: httpx.Client, image: str) -> None:
    body = {"image": image, "edits": [{"prototype": 0, "op": "max"}], "steps": 4, "rounds": 2}
    answer = real.post("/edit", json={**body, "preserve_attributes": ["Bag"]}).json()
    assert answer["preserved_attributes"] == ["Bag"]
    asked, before = (answer["activations"][name] for name in ("asked", "before"))
    assert [j for j in range(30) if asked[j] != before[j]] == [0]


@pytest.mark.parametrize(
    ("options", "status", "detail"),
    [
        ({"preserve_attributes": ["Hat"]}, 404, "there is no attribute 'Hat'"),
        ({"preserve_attributes": ["Coat", "Coat"]}, 422, "more than once: Coat"),
        ({"preserve_attributes": ["Bag"]}, 422, "both edited and to be preserved: Bag"),
        (
            {"preserve_attributes": ["Coat"], "rounds": 1},
            422,
            "preserve_attributes needs rounds",
        ),
        ({"preserve_attributes": ["Hat", "Hat"]}, 404, "there is no attribute 'Hat'"),
        ({"preserve_attributes": ["x" * 201]}, 422, "at most 200 characters"),
    ],
)
def test_attributes_that_cannot_be_held_are_refused(
    real: httpx.Client, image: str, options: dict[str, Any], status: int, detail: str
) -> None:
    answer = real.post("/edit", json={"image": image, "edits": [BAG], **options})
    assert answer.status_code == status
    assert detail in answer.json()["detail"]


def test_attributes_and_prototypes_can_be_edited_together(real: httpx.Client, image: str) -> None:
    edits = [BAG, {"prototype": 0, "op": "max"}]
    answer = real.post("/edit", json={"image": image, "edits": edits, "steps": 4, "rounds": 1}).json()
    assert [attribute["name"] for attribute in answer["attributes"]] == ["Bag"]


@pytest.mark.parametrize("options", [{"decouple": True}, {"start": "auto"}, {"inversion": "bdia"}])
def test_attributes_work_with_every_other_option(
    real: httpx.Client, image: str, options: dict[str, Any]
) -> None:
    body = {"image": image, "edits": [BAG], "steps": 10, "rounds": 1, **options}
    answer = real.post("/edit", json=body)
    assert answer.status_code == 200, answer.text


def test_generated_images_take_the_attribute(real: httpx.Client, bundle: Bundle) -> None:
    body = {"num_images": 4, "steps": 10, "seed": 3}
    plain = real.post("/generate", json=body).json()
    edited = real.post("/generate", json={**body, "edits": [BAG]}).json()
    rises = [
        log_odds(bundle, after["achieved"], "Bag") - log_odds(bundle, before["achieved"], "Bag")
        for before, after in zip(plain["images"], edited["images"], strict=True)
    ]
    assert np.mean(rises) > 0.0


@pytest.mark.parametrize(
    ("edit", "status", "words"),
    [
        ({"attribute": "Beard", "op": "max"}, 404, "no attribute 'Beard'"),
        ({"attribute": "Bag", "prototype": 3, "op": "max"}, 422, "of a prototype or of an attribute"),
        ({"op": "max"}, 422, "of a prototype or of an attribute"),
        ({"attribute": "Bag", "op": "set"}, 422, "needs a value"),
        ({"attribute": 7, "op": "max"}, 422, "string"),
    ],
)
def test_edits_that_make_no_sense_are_refused(
    real: httpx.Client, image: str, edit: dict[str, Any], status: int, words: str
) -> None:
    answer = real.post("/edit", json={"image": image, "edits": [edit]})
    assert answer.status_code == status
    assert words in answer.text


def test_the_client_edits_attributes(real_url: str, reference_pngs: list[bytes]) -> None:
    with Client(real_url) as client:
        edited = client.edit(reference_pngs[0], [Edit(None, "max", attribute="Bag")], steps=4, rounds=1)
        assert edited.attributes[0].name == "Bag"
        assert edited.preserved_attributes == ()
        assert edited.other_attributes is not None
        assert "Bag" not in {other.name for other in edited.other_attributes}
        first, last = edited.other_attributes[0], edited.other_attributes[-1]
        assert abs(first.change) >= abs(last.change)
        listed = client.prototypes().attributes
        assert listed is not None
        assert "Bag" in [attribute.name for attribute in listed]
        holding = client.edit(reference_pngs[0], [Edit(21, "max")], steps=2, preserve_attributes=("Bag",))
        assert holding.preserved_attributes == ("Bag",)


def test_the_command_line_holds_attributes(
    real_url: str, reference_pngs: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(reference_pngs[0])
    at = ["--url", real_url, "--steps", "2", "-o", str(tmp_path / "out.png"), "--json"]
    for held in ([], ["Coat", "Ankle boot"]):
        options = [word for name in held for word in ("--preserve-attribute", name)]
        assert main(["edit", str(tmp_path / "a.png"), "-e", "@Bag=max", *options, *at]) == 0
        (answer,) = json.loads(capsys.readouterr().out)["images"]
        assert answer["preserved_attributes"] == held


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("@smile=max", Edit(None, "max", None, "smile")),
        ("@smile=-2.5", Edit(None, "add", -2.5, "smile")),
        ("@ankle boot=3", Edit(None, "set", 3.0, "ankle boot")),
        ("@a=b=x2", Edit(None, "scale", 2.0, "a=b")),
        ("smile=max", Edit("smile", "max")),
    ],
)
def test_the_command_line_writes_attributes_with_an_at_sign(text: str, edit: Edit) -> None:
    assert EditType().convert(text, None, None) == edit
