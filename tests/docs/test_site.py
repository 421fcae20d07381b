"""`make docs`: nothing is missing in the site, nothing leads nowhere, and nothing comes from elsewhere."""

from __future__ import annotations

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Request, sync_playwright
from prometheus_client.parser import text_string_to_metric_families

from docs.reference.http_api import document, operations
from docs.reference.markdown import anchor
from docs.reference.settings_table import meanings
from service.cli.program import program
from service.metrics import Metrics
from service.settings import Settings
from tests.docs.site_pages import SitePage, dead_links, site_pages

ROOT = Path(__file__).parents[2]
CHROMIUM = "/usr/bin/chromium"
CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    directory = tmp_path_factory.mktemp("site")
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", "docs/mkdocs.yml")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [*command, "--site-dir", str(directory)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return directory


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, SitePage]:
    return site_pages(site)


def test_make_docs_builds_strictly() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "--dry-run", "docs"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "mkdocs build" in done.stdout
    assert "--strict" in done.stdout


def test_no_link_or_anchor_is_dead(pages: dict[str, SitePage]) -> None:
    assert {"index.html", "reference/http-api.html", "measurements/ground_truth/edits.html"} <= pages.keys()
    assert {"operating/tracing.html", "operating/ray/index.html", "how-to/many-devices.html"} <= pages.keys()
    assert dead_links(pages) == []


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p id="x"><a href="b.html#y">1</a><a href="#x">2</a><img src="c.png">')
    (tmp_path / "b.html").write_text(
        '<a href="a.html#x">3</a><a href="a.html#z">4</a><a href="https://h/">5</a>'
    )
    found = dead_links(site_pages(tmp_path))
    assert found == ["a.html: b.html#y", "a.html: c.png", "b.html: a.html#z"]


def test_no_page_loads_from_another_host(site: Path, pages: dict[str, SitePage]) -> None:
    loads = {
        f"{name}: {load}" for name, page in pages.items() for load in page.loads if urlsplit(load).netloc
    }
    assert loads == set()
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", sheet.read_text()), sheet.name


def test_no_page_names_the_machine_that_built_it(pages: dict[str, SitePage]) -> None:
    for name, page in pages.items():
        assert str(ROOT) not in page.path.read_text(encoding="utf-8"), name


def test_no_mark_of_markdown_is_left_in_the_reference(pages: dict[str, SitePage]) -> None:
    for name, page in pages.items():
        if name.startswith("reference/"):
            shown = re.findall(
                r"[^\n]{0,40}\\(?:\||&lt;|&gt;|\[|\]|_)", page.path.read_text(encoding="utf-8")
            )
            assert shown == [], name
    assert any("[encode|generate]" in text for text in _codes(pages["reference/patronus.html"].path))


def test_every_operation_is_described(pages: dict[str, SitePage]) -> None:
    expected = {anchor(f"{method} {path}") for path, method, _ in operations(document())}
    assert {"post-edit", "get-healthz", "put-prototypes-prototype"} <= expected
    assert expected <= pages["reference/http-api.html"].ids


def test_every_setting_is_described(site: Path) -> None:
    variables = {f"PATRONUS_{name.upper()}" for name in Settings.__dataclass_fields__}
    assert variables <= _codes(site / "reference" / "settings.html")
    assert set(Settings.__dataclass_fields__) - meanings().keys() == set()


def test_every_metric_is_described(site: Path) -> None:
    families = text_string_to_metric_families(Metrics().exposition().decode())
    expected = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in families
        if family.name.startswith("patronus_") and not family.name.endswith("_created")
    }
    assert "patronus_requests_total" in expected
    assert expected <= _codes(site / "reference" / "metrics.html")


def test_every_command_is_described(pages: dict[str, SitePage]) -> None:
    assert {f"patronus-{name}" for name in program.commands} <= pages["reference/patronus.html"].ids
    commands = {"train", "train-prior", "evaluate", "export", "sweep", "remeasure", "import-official"}
    assert commands <= pages["reference/training.html"].ids


def test_classes_and_functions_of_client_and_model_are_described(pages: dict[str, SitePage]) -> None:
    client = {"service.client.client.Client.edit", "service.client.results.Edited"}
    assert client <= pages["reference/client.html"].ids
    model = {"model.samplers.sampler_table", "model.bundle.Bundle.load", "model.prior.Prior"}
    assert model <= pages["reference/model.html"].ids


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """Of the site over HTTP."""
    handler = functools.partial(_Silent, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_browser_finds_pages_by_searching_and_asks_no_other_host(address: str) -> None:
    asked: list[str] = []
    faults: list[str] = []

    def note(request: Request) -> None:
        asked.append(urlsplit(request.url).netloc)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        page = browser.new_page()
        page.on("request", note)
        page.on("pageerror", lambda error: faults.append(str(error)))
        for path in ("index.html", "tutorial.html", "reference/http-api.html", "how-to/notebook.html"):
            answer = page.goto(f"{address}/{path}")
            assert answer is not None
            assert answer.ok
            assert page.locator("h1").count() == 1, path
        page.goto(f"{address}/index.html")
        page.locator("input.md-search__input").click()
        page.locator("input.md-search__input").press_sequentially("shortcut")  # it listens to keys
        page.locator(".md-search-result__link").first.click()
        page.wait_for_url("**/*shortcut*")
        browser.close()
    assert faults == []
    assert set(filter(None, asked)) == {urlsplit(address).netloc}


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing is written."""


def _codes(path: Path) -> set[str]:
    """What a page has in code."""
    return {unescape(code) for code in re.findall(r"<code>([^<]*)</code>", path.read_text(encoding="utf-8"))}
