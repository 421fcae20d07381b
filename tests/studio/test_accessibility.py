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
GRAVE = ("serious", "critical")


def show(page: Page, view: str) -> None:
    page.locator(f"[data-view={view}]").click()
    if view == "diagnose":
        page.get_by_label("Change", exact=True).select_option("21")
        page.get_by_role("button", name="Diagnose", exact=True).last.click()
    page.locator(VIEWS[view]).first.wait_for()


def grave_problems(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{item['id']}: {node['html'][:200]}"
        for item in found
        if item["impact"] in GRAVE
        for node in item["nodes"]
    ]


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_no_serious_problem_in_either_theme(open_studio: OpenStudio, view: str) -> None:
    page = open_studio("#edits=21=5")
    show(page, view)
    assert grave_problems(page) == []
    page.get_by_role("button", name="Dark theme").click()
    assert grave_problems(page) == []


def test_phone_shows_every_view_without_scrolling_sideways(open_studio: OpenStudio) -> None:
    page = open_studio("#edits=21=5", size=(360, 740))
    for view in VIEWS:
        show(page, view)
        assert page.evaluate("document.documentElement.scrollWidth") == 360, view


def test_edited_attribute_passes_axe_in_both_themes_and_fits_a_phone(open_studio: OpenStudio) -> None:
    page = open_studio("#edits=@Bag=max&steps=5", size=(360, 740))
    page.locator(VIEWS["studio"]).wait_for()
    assert grave_problems(page) == []
    page.get_by_role("button", name="Dark theme").click()
    assert grave_problems(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_dialogs_pass_axe(open_studio: OpenStudio) -> None:
    page = open_studio("#edits=21=5")
    page.get_by_role("button", name="Export").click()
    assert grave_problems(page) == []


def test_theme_is_chosen_and_kept(open_studio: OpenStudio) -> None:
    page = open_studio()
    page.get_by_role("button", name="Dark theme").click()
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    expect(page.get_by_role("button", name="Light theme")).to_be_visible()
