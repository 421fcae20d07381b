"""Bundles go to a hub and come back as they were; what goes wrong there is said in one sentence."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from model.bundle import DENOISER, MANIFEST, PRIOR, Bundle
from model.bundle_address import HubAddress
from model.hub import Arrival, Hub, HubError, HubUnreachableError, open_bundle, pull
from model.model_card import CARD, SHEET, model_card
from tests.hub_stand_in import READER, WRITER, StandInHub

ADDRESS = HubAddress.parse("hf://lab/tiny")
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # how the library uploads


@pytest.fixture(autouse=True)
def _this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that `huggingface_hub` has read from an environment which may be another test's."""
    pytest.importorskip("huggingface_hub")
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # a protocol of its own, for hf.co alone
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent/token")


@pytest.fixture
def stand_in() -> Iterator[StandInHub]:
    with StandInHub().serving() as hub:
        yield hub


@pytest.fixture
def hub(stand_in: StandInHub, tmp_path: Path) -> Hub:
    return Hub(endpoint=stand_in.url, token=WRITER, cache=tmp_path / "cache")


@pytest.fixture
def pushed(hub: Hub, tiny_bundle: Path) -> HubAddress:
    return hub.push(Bundle.load(tiny_bundle), ADDRESS)


def other(hub: Hub, tmp_path: Path, token: str | None = None) -> Hub:
    """The same hub, for somebody with another cache."""
    return replace(hub, cache=tmp_path / "other", token=token)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_pushed_bundle_is_pulled_byte_for_byte(
    hub: Hub, tiny_bundle: Path, tmp_path: Path, pushed: HubAddress
) -> None:
    found = pull(ADDRESS, tmp_path / "new" / "here", other(hub, tmp_path))
    assert contents(tmp_path / "new" / "here") == contents(tiny_bundle)
    assert found.digest == Bundle.load(tiny_bundle).digest
    assert found.source == str(pushed)
    assert pushed.is_commit


def test_only_what_the_manifest_lists_is_fetched(
    hub: Hub, stand_in: StandInHub, tmp_path: Path, pushed: HubAddress, tiny_bundle: Path
) -> None:
    stand_in.repositories["lab/tiny"].files["huge.bin"] = bytes(1000)
    told: dict[str, tuple[int, int]] = {}
    stand_in.asked.clear()
    fetched = other(hub, tmp_path).fetch(ADDRESS, lambda name, n, size: told.update({name: (n, size)}))
    files = {path.name: path.stat().st_size for path in tiny_bundle.iterdir()}
    assert {path.name for path in fetched.directory.iterdir()} == files.keys()
    assert {line.rpartition("/")[2] for line in stand_in.asked if "/resolve/" in line} == files.keys()
    assert told == {name: (size, size) for name, size in files.items()}


def test_a_repository_has_a_card_that_says_what_the_manifest_says(
    stand_in: StandInHub, hub: Hub, tiny_bundle: Path
) -> None:
    hub.push(Bundle.load(tiny_bundle), ADDRESS, license="mit")
    files = stand_in.repositories["lab/tiny"].files
    card = files[CARD].decode()
    assert card.startswith('---\nlicense: "mit"\nlibrary_name: "patronus-server"\n')
    assert "# tiny model" in card
    assert "patronus serve --bundle hf://lab/tiny" in card
    assert "| linear probe on s | accuracy_test | - | 0.5 |" in card
    assert Bundle.load(tiny_bundle).digest in card
    assert files[SHEET].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("dataset", "line"),
    [
        ("fashion-mnist", 'datasets: ["fashion-mnist"]'),
        ("hf:lab/faces:image:label", 'datasets: ["lab/faces"]'),
        ("cartoon-faces:fair_hair=smile@0.8", 'datasets: ["cartoon-faces"]'),
        ("folder", None),
        ("hf:/home/me/pictures", None),
        ("hf:pictures", None),  # a folder here
    ],
)
def test_a_card_names_the_data_set_where_others_know_it(
    tiny_bundle: Path, dataset: str, line: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    bundle = replace(Bundle.load(tiny_bundle), provenance={"dataset": dataset})
    front_matter = model_card(bundle, ADDRESS).split("---\n")[1]
    assert [found for found in front_matter.splitlines() if found.startswith("datasets")] == (
        [] if line is None else [line]
    )


def test_pushing_again_replaces_the_bundle_and_nothing_else(
    hub: Hub, stand_in: StandInHub, tiny_bundle: Path, tiny_prior_bundle: Path
) -> None:
    first = hub.push(Bundle.load(tiny_prior_bundle), ADDRESS)
    repository = stand_in.repositories["lab/tiny"]
    repository.files.update({CARD: b"---\n---\nby hand", "notes.txt": b"kept"})
    second = hub.push(Bundle.load(tiny_bundle), ADDRESS, with_card=False)
    assert first != second
    assert PRIOR not in repository.files
    assert repository.files[CARD] == b"---\n---\nby hand"
    assert repository.files["notes.txt"] == b"kept"
    assert open_bundle(ADDRESS, hub).name == "tiny model"
    assert open_bundle(first, hub).name == "tiny with prior"


def test_a_branch_is_written_and_read_by_its_name(
    hub: Hub, tiny_bundle: Path, tiny_prior_bundle: Path, pushed: HubAddress
) -> None:
    branch = HubAddress.parse("hf://lab/tiny@next/one")
    written = hub.push(Bundle.load(tiny_prior_bundle), branch)
    assert open_bundle(branch, hub).source == str(written)
    assert open_bundle(ADDRESS, hub).source == str(pushed)
    with pytest.raises(HubError, match="a commit cannot be written to"):
        hub.push(Bundle.load(tiny_bundle), pushed)


def test_a_private_repository_needs_a_token_that_may_read(
    hub: Hub, stand_in: StandInHub, tiny_bundle: Path, tmp_path: Path
) -> None:
    hub.push(Bundle.load(tiny_bundle), ADDRESS, is_private=True)
    assert stand_in.repositories["lab/tiny"].is_private
    with pytest.raises(
        HubError, match=r"hf://lab/tiny: the repository does not exist, or is private: set HF_TOKEN"
    ):
        other(hub, tmp_path).fetch(ADDRESS)
    with pytest.raises(HubError, match=r"the hub refuses it .*Invalid credentials"):
        other(hub, tmp_path, token="hf_expired").fetch(ADDRESS)
    assert other(hub, tmp_path, token=READER).fetch(ADDRESS).directory.is_dir()


def test_what_is_to_be_private_does_not_go_into_a_public_repository(
    hub: Hub, stand_in: StandInHub, tiny_prior_bundle: Path, pushed: HubAddress
) -> None:
    before = dict(stand_in.repositories["lab/tiny"].files)
    with pytest.raises(HubError, match="hf://lab/tiny: the repository is public"):
        hub.push(Bundle.load(tiny_prior_bundle), ADDRESS, is_private=True)
    assert stand_in.repositories["lab/tiny"].files == before


@pytest.mark.parametrize("name", ["../evil.py", "/tmp/evil.py", "evil.py", "evil\x1b[2J"])
def test_a_manifest_cannot_bring_other_files(
    hub: Hub, stand_in: StandInHub, tmp_path: Path, pushed: HubAddress, name: str
) -> None:
    files = stand_in.repositories["lab/tiny"].files
    manifest = json.loads(files[MANIFEST])
    manifest["files"][name] = {"sha256": "0" * 64}
    files[MANIFEST] = json.dumps(manifest).encode()
    files[name] = b"print('here')"
    stand_in.asked.clear()
    with pytest.raises(HubError, match=f"files lists {re.escape(repr(name))}, which no bundle has"):
        pull(ADDRESS, tmp_path / "here", other(hub, tmp_path))
    assert not any("evil" in line for line in stand_in.asked)
    assert not (tmp_path / "here").exists()


def test_a_gated_repository_says_how_to_be_let_in(
    hub: Hub, stand_in: StandInHub, tmp_path: Path, pushed: HubAddress
) -> None:
    stand_in.repositories["lab/tiny"].is_gated = True
    with pytest.raises(HubError, match="asks for consent: request access on its page"):
        other(hub, tmp_path).fetch(ADDRESS)


@pytest.mark.parametrize("token", [None, READER])
def test_pushing_needs_a_token_that_may_write(hub: Hub, tiny_bundle: Path, token: str | None) -> None:
    with pytest.raises(
        HubError, match=r"refuses it .*rights to write.*set HF_TOKEN to a token that may write"
    ):
        replace(hub, token=token or False).push(Bundle.load(tiny_bundle), ADDRESS)  # type: ignore[arg-type]


def test_what_is_not_there_is_named(
    hub: Hub, stand_in: StandInHub, tmp_path: Path, pushed: HubAddress
) -> None:
    with pytest.raises(HubError, match=r"hf://lab/none: the repository does not exist"):
        hub.fetch(HubAddress("lab/none"))
    with pytest.raises(HubError, match=r"hf://lab/tiny@v9: the repository has no such revision"):
        hub.fetch(replace(ADDRESS, revision="v9"))
    del stand_in.repositories["lab/tiny"].files[DENOISER]
    with pytest.raises(HubError, match=r"denoiser.onnx: the repository has no such file"):
        other(hub, tmp_path).fetch(ADDRESS)
    del stand_in.repositories["lab/tiny"].files[MANIFEST]
    with pytest.raises(HubError, match=r"manifest.json: the repository has no such file"):
        other(hub, tmp_path / "again").fetch(ADDRESS)


def test_a_manifest_cannot_ask_for_files_elsewhere(
    hub: Hub, stand_in: StandInHub, tmp_path: Path, pushed: HubAddress
) -> None:
    files = stand_in.repositories["lab/tiny"].files
    files[MANIFEST] = files[MANIFEST].replace(b'"encoder.onnx"', b'"../encoder.onnx"')
    stand_in.asked.clear()
    with pytest.raises(HubError, match=r"files does not list encoder\.onnx"):
        other(hub, tmp_path).fetch(ADDRESS)
    assert not any("../" in line for line in stand_in.asked)


def test_a_damaged_download_is_fetched_once_more(
    hub: Hub, stand_in: StandInHub, tmp_path: Path, pushed: HubAddress, tiny_bundle: Path
) -> None:
    stand_in.damaged[DENOISER] = 1
    found = open_bundle(ADDRESS, other(hub, tmp_path))
    assert found.digest == Bundle.load(tiny_bundle).digest
    assert stand_in.damaged[DENOISER] < 0


def test_a_file_that_stays_damaged_is_refused(
    hub: Hub, stand_in: StandInHub, tmp_path: Path, pushed: HubAddress
) -> None:
    stand_in.damaged[DENOISER] = 100
    with pytest.raises(HubError, match=r"denoiser.onnx has sha256 \w+, the manifest says"):
        pull(ADDRESS, tmp_path / "here", other(hub, tmp_path))
    assert not (tmp_path / "here").exists()


def test_a_download_that_breaks_off_is_begun_anew(
    hub: Hub, stand_in: StandInHub, tmp_path: Path, pushed: HubAddress, tiny_bundle: Path
) -> None:
    stand_in.broken_off[DENOISER] = 1
    pull(ADDRESS, tmp_path / "here", other(hub, tmp_path))
    assert contents(tmp_path / "here") == contents(tiny_bundle)


def test_half_a_file_is_refused(hub: Hub, stand_in: StandInHub, tmp_path: Path, pushed: HubAddress) -> None:
    stand_in.cut[DENOISER] = 1
    with pytest.raises(HubError, match=r"denoiser\.onnx: .*file should be of size \d+ but has size \d+"):
        pull(ADDRESS, tmp_path / "here", other(hub, tmp_path))
    assert not (tmp_path / "here").exists()


def test_a_download_does_not_begin_for_ever() -> None:
    told: list[int] = []
    arrival = Arrival(ADDRESS, DENOISER, lambda name, n, size: told.append(n), total=10)
    for n in (6, -6, 6, -6, 6):
        arrival.update(n)
    assert told == [6, 0, 6, 0, 6]
    with pytest.raises(HubError, match=r"denoiser\.onnx breaks off again and again"):
        arrival.update(-6)
    with pytest.raises(HubError, match="longer than the 10 bytes announced"):
        Arrival(ADDRESS, DENOISER, lambda *_: None, total=10).update(11)


def test_damage_in_the_cache_is_mended(hub: Hub, pushed: HubAddress) -> None:
    blob = (hub.fetch(ADDRESS).directory / DENOISER).resolve()
    blob.write_bytes(blob.read_bytes()[:100])
    assert open_bundle(ADDRESS, hub).source == str(pushed)


def test_a_known_commit_needs_no_hub(hub: Hub, stand_in: StandInHub, pushed: HubAddress) -> None:
    hub.fetch(ADDRESS)
    stand_in.asked.clear()
    assert open_bundle(pushed, hub).source == str(pushed)
    assert stand_in.asked == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_without_the_hub_the_cache_serves_and_else_it_is_said(
    hub: Hub, pushed: HubAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fetch(ADDRESS)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert open_bundle(ADDRESS, replace(hub, endpoint=gone)).source == str(pushed)
    with pytest.raises(HubUnreachableError, match="hf://lab/tiny: the hub cannot be reached"):
        other(replace(hub, endpoint=gone), tmp_path).fetch(ADDRESS)
    with pytest.raises(HubUnreachableError, match="the hub cannot be reached"):
        other(replace(hub, endpoint=gone), tmp_path).fetch(pushed)
    monkeypatch.setattr(sys.modules["huggingface_hub.constants"], "HF_HUB_OFFLINE", True)
    assert open_bundle(ADDRESS, hub).source == str(pushed)
    with pytest.raises(HubUnreachableError, match="HF_HUB_OFFLINE is set"):
        other(hub, tmp_path).fetch(ADDRESS)


def test_a_hub_that_says_nothing_is_given_up(
    hub: Hub, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["huggingface_hub.constants"], "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute = replace(hub, endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(HubUnreachableError, match="hf://lab/tiny: the hub does not answer in time"):
            mute.fetch(ADDRESS)
        with pytest.raises(HubUnreachableError, match="the hub does not answer in time"):
            mute.fetch(ADDRESS.at("0a" * 20))


def test_a_hub_that_is_down_is_no_fault_of_the_bundle(
    hub: Hub, stand_in: StandInHub, tmp_path: Path, pushed: HubAddress
) -> None:
    stand_in.status = 503
    with pytest.raises(HubUnreachableError, match=r"hf://lab/tiny: the hub answers 503 \(out of order\)"):
        other(hub, tmp_path).fetch(ADDRESS)


def test_what_is_in_the_directory_is_never_replaced(
    hub: Hub,
    stand_in: StandInHub,
    tiny_bundle: Path,
    tiny_prior_bundle: Path,
    tmp_path: Path,
    pushed: HubAddress,
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    pull(ADDRESS, here, hub)
    assert contents(here) == contents(tiny_bundle)
    assert pull(ADDRESS, here, hub).source == str(pushed)
    shutil.rmtree(here)
    here.mkdir()
    (here / "thesis.txt").write_text("years of work")
    stand_in.asked.clear()
    with pytest.raises(HubError, match="exists and is something else"):
        pull(ADDRESS, here, hub)
    assert contents(here) == {"thesis.txt": b"years of work"}
    assert stand_in.asked == []  # it is seen before anything is fetched
    shutil.rmtree(here)
    shutil.copytree(tiny_prior_bundle, here)
    with pytest.raises(HubError, match="exists and is something else"):
        pull(ADDRESS, here, hub)
    assert contents(here) == contents(tiny_prior_bundle)


def test_without_the_package_its_extra_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        HubError, match=r"hf://lab/tiny needs the package huggingface_hub.*patronus-server\[hub\]"
    ):
        hub.fetch(ADDRESS)
