"""The studio for everybody: axe-core's rules in both themes, and phones."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.studio.conftest import OpenStudio

VIEWS = {
    "studio": ".timeline-body",
    "prototypes": ".card",
    "compare": ".pair .facts >> nth=1",
    "diagnose": "table.couplings",
}


def show(page: Page, view: str) -> None:
    expect(page.locator(".bar, .card").first).to_be_attached()
    if view == "diagnose":
        page.get_by_label("Change").select_option("21")
        page.get_by_role("button", name="Diagnose", exact=True).last.click()
    page.locator(VIEWS[view]).first.wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_no_serious_problem(open_studio: OpenStudio, view: str, theme: str) -> None:
    page = open_studio(f"#view={view}&edits=21=5", theme=theme)
    show(page, view)
    found = Axe().run(page).response["violations"]
    grave = [
        f"{item['id']}: {node['html'][:200]}"
        for item in found
        if item["impact"] in ("serious", "critical")
        for node in item["nodes"]
    ]
    assert grave == []


@pytest.mark.parametrize("view", VIEWS)
def test_phone_shows_every_view_without_scrolling_sideways(open_studio: OpenStudio, view: str) -> None:
    page = open_studio(f"#view={view}&edits=21=5", size=(360, 740))
    show(page, view)
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_dialogs_pass_axe(open_studio: OpenStudio) -> None:
    page = open_studio("#edits=21=5")
    page.get_by_role("button", name="Export").click()
    assert [item["id"] for item in Axe().run(page).response["violations"]] == []


def test_theme_is_chosen_and_kept(open_studio: OpenStudio) -> None:
    page = open_studio()
    page.get_by_role("button", name="Dark theme").click()
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    expect(page.get_by_role("button", name="Light theme")).to_be_visible()
