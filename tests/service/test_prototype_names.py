"""Names that prototypes are given: kept, shared between processes, and used wherever a prototype is named."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.bundle import Bundle, Prototype
from service.pipeline.errors import InvalidNameError, NamesFileError, NameTakenError
from service.pipeline.prototype_names import PrototypeNames
from service.settings import Settings
from tests.service.conftest import b64, fake_runner, serving


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "names" / "digest.json"


@pytest.fixture
def own(bundle: Bundle) -> Bundle:
    """The shipped bundle, as if prototype 0 had come with a name."""
    return replace(bundle, prototypes=(Prototype(name="hem"), *bundle.prototypes[1:]))


def names_in(names: PrototypeNames) -> dict[int, str]:
    return {j: p.name for j, p in enumerate(names.bundle().prototypes) if p.name is not None}


def test_names_are_kept_over_restarts(own: Bundle, file: Path) -> None:
    names = PrototypeNames(own, file)
    names.rename(3, "left sleeve")
    names.rename(0, "näht 1 ✂")
    assert names_in(names) == {0: "näht 1 ✂", 3: "left sleeve"}
    assert names_in(PrototypeNames(own, file)) == names_in(names)


def test_null_is_the_bundles_own_name_again(own: Bundle, file: Path) -> None:
    names = PrototypeNames(own, file)
    names.rename(0, "seam")
    names.rename(3, "sleeve")
    names.rename(0, None)
    names.rename(3, None)
    assert names_in(names) == {0: "hem"}


def test_the_bundle_itself_stays_as_it_is(own: Bundle, file: Path) -> None:
    names = PrototypeNames(own, file)
    assert names.bundle() is own
    names.rename(3, "sleeve")
    assert (own.prototypes[3].name, names.bundle().digest) == (None, own.digest)


def test_what_another_process_names_is_seen(own: Bundle, file: Path) -> None:
    names, other = PrototypeNames(own, file), PrototypeNames(own, file)
    assert names_in(names) == {0: "hem"}
    other.rename(5, "collar")
    assert names_in(names) == {0: "hem", 5: "collar"}
    other.rename(5, None)
    assert names_in(names) == {0: "hem"}
    names.rename(1, "cuff")
    other.rename(2, "hood")
    assert names_in(names) == names_in(other) == {0: "hem", 1: "cuff", 2: "hood"}
    file.unlink()
    assert names_in(names) == {0: "hem"}


def test_names_given_at_once_are_all_kept(own: Bundle, file: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda j: PrototypeNames(own, file).rename(j, f"part {j}"), range(1, 25)))
    assert names_in(PrototypeNames(own, file)) == {0: "hem"} | {j: f"part {j}" for j in range(1, 25)}


def test_an_unchanged_file_is_not_read_again(own: Bundle, file: Path) -> None:
    names = PrototypeNames(own, file)
    names.rename(3, "sleeve")
    assert names.bundle() is names.bundle()


def test_a_name_belongs_to_one_prototype(own: Bundle, file: Path) -> None:
    names = PrototypeNames(own, file)
    names.rename(3, "sleeve")
    names.rename(3, "sleeve")
    for j, name in ((4, "sleeve"), (4, "hem")):
        with pytest.raises(NameTakenError, match=name):
            names.rename(j, name)
    names.rename(0, "seam")
    names.rename(4, "hem")
    with pytest.raises(NameTakenError, match="prototype 4 is named 'hem'"):
        names.rename(0, None)
    assert names_in(names) == {0: "seam", 3: "sleeve", 4: "hem"}


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "a" * 101, " a", "a ", "a\nb", "a\x00", "\ud800", "\u200b"),
        *("7", "-7", "+7", "9" * 30, "٣", "a/b", ".", ".."),
    ],
)
def test_what_is_no_name_is_refused(own: Bundle, file: Path, name: str) -> None:
    with pytest.raises(InvalidNameError):
        PrototypeNames(own, file).rename(3, name)
    assert not file.exists()


DAMAGED = [
    b"",
    b"{",
    b"\xff",
    b"[" * 100_000,
    b"[]",
    b"{}",
    b'{"names": []}',
    b'{"names": {"x": "a"}}',
    b'{"names": {"3": 4}}',
    b'{"names": {"3": "4"}}',
    b'{"names": {"30": "a"}}',
    b'{"names": {"-1": "a"}}',
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_logged_once_and_never_overwritten(
    own: Bundle, file: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    names = PrototypeNames(own, file)
    with caplog.at_level(logging.ERROR):
        assert names.bundle() is names.bundle() is own
    assert [str(file) in record.getMessage() for record in caplog.records] == [True]
    with pytest.raises(NamesFileError):
        names.rename(3, "sleeve")
    assert file.read_bytes() == content
    file.write_text('{"names": {"3": "sleeve"}}')
    assert names_in(names) == {0: "hem", 3: "sleeve"}


def test_nothing_is_left_of_a_name_that_cannot_be_written(own: Bundle, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a directory should be")
    names = PrototypeNames(own, tmp_path / "state" / "names.json")
    with pytest.raises(NamesFileError, match="cannot be written"):
        names.rename(3, "sleeve")
    assert names.bundle() is own


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def client(settings: Settings, state: Path) -> Iterator[httpx.Client]:
    with (
        serving(replace(settings, state_dir=state, cors_origins=("*",)), fake_runner) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def test_a_name_works_and_is_shown_wherever_a_prototype_is(
    client: httpx.Client, reference_pngs: list[bytes], bundle: Bundle
) -> None:
    put = client.put("/prototypes/3", json={"name": "left sleeve"})
    assert put.status_code == 200, put.text
    assert put.json()["prototype"]["name"] == "left sleeve"
    assert put.json()["model"]["digest"] == bundle.digest
    assert put.json() == client.get("/prototypes/3").json() == client.get("/prototypes/left%20sleeve").json()
    assert client.get("/prototypes").json()["prototypes"][3]["name"] == "left sleeve"
    image = b64(reference_pngs[0])
    edits = [{"prototype": "left sleeve", "op": "max"}]

    def posted(path: str, **body: Any) -> dict[str, Any]:
        answer = client.post(path, json={"steps": 2, **body})
        assert answer.status_code == 200, answer.text
        parsed: dict[str, Any] = answer.json()
        return parsed

    by_name, by_index = (
        posted("/generate", edits=[{"prototype": p, "op": "max"}]) for p in ("left sleeve", 3)
    )
    assert by_name["images"] == by_index["images"]
    posted("/edit", image=image, edits=edits)
    held = posted("/edit", image=image, edits=[{"prototype": 0, "op": "max"}], preserve=["left sleeve"])
    assert held["preserved"] == [3]
    shown = posted("/visualize", prototypes=["left sleeve"], num_samples=2)
    assert (shown["prototypes"][0]["prototype"], shown["prototypes"][0]["name"]) == (3, "left sleeve")
    diagnosis = posted("/diagnose", prototypes=["left sleeve", 0], num_samples=6)
    assert [found["name"] for found in diagnosis["interventions"]] == ["left sleeve", None]
    back = client.put("/prototypes/left%20sleeve", json={"name": None})
    assert back.json()["prototype"]["name"] is None
    assert client.get("/prototypes/left%20sleeve").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        ("3", {"name": "0"}, 422, "number"),
        ("3", {"name": ""}, 422, "name"),
        ("3", {"name": "a" * 101}, 422, "name"),
        ("3", {"name": 4}, 422, "name"),
        ("3", {}, 422, "name"),
        ("3", {"name": "a", "colour": "red"}, 422, "colour"),
        ("3", {"name": "taken"}, 409, "prototype 7 is named 'taken' already"),
        ("30", {"name": "a"}, 404, "no prototype 30"),
        ("nobody", {"name": "a"}, 404, "nobody"),
        ("3", {"name": "a", "model": "nobody"}, 404, "no model"),
        ("3?model=nobody", {"name": "a"}, 404, "no model"),
        ("3?model=a", {"name": "a", "model": "b"}, 422, "the same"),
    ],
)
def test_what_cannot_be_named_is_refused_with_the_reason(
    client: httpx.Client, path: str, body: dict[str, Any], status: int, word: str
) -> None:
    assert client.put("/prototypes/7", json={"name": "taken"}).status_code == 200
    answer = client.put(f"/prototypes/{path}", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert word in answer.json()["detail"]


def test_a_model_in_the_address_is_the_one_that_is_named(client: httpx.Client, bundle: Bundle) -> None:
    answer = client.put("/prototypes/1", params={"model": bundle.name}, json={"name": "a"})
    assert answer.json()["prototype"]["name"] == "a"


def test_with_an_unusable_file_prototypes_are_shown_and_naming_is_refused(
    client: httpx.Client, state: Path, bundle: Bundle
) -> None:
    assert client.put("/prototypes/3", json={"name": "sleeve"}).status_code == 200
    file = state / "names" / f"{bundle.digest}.json"
    assert json.loads(file.read_text()) == {"names": {"3": "sleeve"}}
    file.write_text("{")
    assert client.get("/prototypes/3").json()["prototype"]["name"] is None
    refused = client.put("/prototypes/3", json={"name": "cuff"})
    assert refused.status_code == 503
    assert refused.headers["content-type"] == "application/problem+json"
    assert "damaged" in refused.json()["detail"]


def test_both_methods_of_an_address_are_named_to_who_tries_another(client: httpx.Client) -> None:
    for path, allowed in (("/prototypes/3", "GET, PUT"), ("/prototypes", "GET"), ("/locate", "POST")):
        refused = client.delete(path)
        assert refused.status_code == 405
        assert refused.headers["allow"] == allowed


def test_browsers_of_other_origins_may_name(client: httpx.Client) -> None:
    headers = {"Origin": "https://gallery.example", "Access-Control-Request-Method": "PUT"}
    answer = client.options("/prototypes/3", headers=headers)
    assert answer.status_code == 200
    assert "PUT" in answer.headers["access-control-allow-methods"]
