"""How the studio's files are sent, and /references, with which it works."""

from __future__ import annotations

import io

import httpx
import numpy as np
import pytest
from PIL import Image

from model.bundle import Bundle
from model.transforms import to_picture
from service.routes.studio import DIRECTORY, MEDIA_TYPES
from service.settings import SHIPPED_BUNDLE


def test_browsers_get_the_page_and_others_the_description(studio_url: str) -> None:
    page = httpx.get(studio_url, headers={"Accept": "text/html,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html")
    assert "Prototype Studio" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    other = httpx.get(studio_url, headers={"Accept": "*/*"})
    assert (other.status_code, other.headers["location"]) == (307, "/docs")
    head = httpx.head(studio_url, headers={"Accept": "text/html"})
    assert (head.status_code, head.headers["etag"]) == (200, page.headers["etag"])


def test_every_file_of_the_folder_is_sent_with_its_type_and_tag(studio_url: str) -> None:
    with httpx.Client(base_url=studio_url) as client:
        for path in (path for path in DIRECTORY.rglob("*") if path.is_file()):
            answer = client.get(f"/studio/{path.relative_to(DIRECTORY).as_posix()}")
            assert answer.content == path.read_bytes()
            assert answer.headers["content-type"] == MEDIA_TYPES[path.suffix]
            again = client.get(answer.url.path, headers={"If-None-Match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["nothing.js", "../app.py", "%2e%2e/app.py", "js"])
def test_nothing_else_is_sent(studio_url: str, path: str) -> None:
    answer = httpx.get(f"{studio_url}/studio/{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_references_are_the_bundles_own(studio_url: str) -> None:
    pictures = Bundle.load(SHIPPED_BUNDLE).pictures
    assert pictures is not None
    file = httpx.get(f"{studio_url}/references/3", params={"model": "fashion-mnist"})
    assert file.headers["content-type"] == "image/png"
    sent = np.asarray(Image.open(io.BytesIO(file.content)))
    assert np.array_equal(sent, np.asarray(to_picture(pictures.reference_images[3])))
    assert len(httpx.get(f"{studio_url}/references").json()["images"]) == len(pictures.reference_images)
    assert httpx.get(f"{studio_url}/references/1000").status_code == 404
    assert httpx.get(f"{studio_url}/references/x").status_code == 404
