from __future__ import annotations

from pathlib import Path

import pytest

from model.bundle_address import HubAddress, bundle_address


@pytest.mark.parametrize(
    ("text", "repository", "revision"),
    [
        ("hf://lab/faces", "lab/faces", None),
        ("hf://lab/faces@v1.2", "lab/faces", "v1.2"),
        ("hf://a-b/c_d.e@refs/pr/1", "a-b/c_d.e", "refs/pr/1"),
        (f"hf://lab/faces@{'0a' * 20}", "lab/faces", "0a" * 20),
    ],
)
def test_an_address_of_the_hub_is_read_and_written(text: str, repository: str, revision: str | None) -> None:
    address = bundle_address(text)
    assert address == HubAddress(repository, revision)
    assert str(address) == text


def test_only_a_whole_commit_is_for_ever() -> None:
    assert HubAddress("lab/faces", "0a" * 20).is_commit
    assert not HubAddress("lab/faces", "0a" * 10).is_commit
    assert not HubAddress("lab/faces").is_commit


def test_anything_else_is_a_directory() -> None:
    assert bundle_address("bundles/faces@2") == Path("bundles/faces@2")


@pytest.mark.parametrize(
    "text",
    [
        "hf://",
        "hf://faces",
        "hf://a/b/c",
        "hf://a/b@",
        "hf://a/../b",
        "hf://a/b@../c",
        "hf:///b",
        "hf://a/b c",
    ],
)
def test_a_malformed_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not of the form hf://ORGANISATION/NAME"):
        bundle_address(text)
