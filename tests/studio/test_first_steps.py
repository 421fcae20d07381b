"""The newcomer's guide: it shows each step itself, and is not shown again to who has hidden it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.studio.conftest import OpenStudio
from tests.studio.test_accessibility import grave_problems

STEPS = ("edited", "located", "timed", "coupled")


def step(page: Page) -> str | None:
    return page.locator(".guide li[aria-current=step]").get_attribute("data-step")


def test_every_step_is_shown_on_demand(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio(url=quick_url)
    show_me = page.get_by_role("button", name="Show me")
    assert step(page) == "edited"
    expect(show_me).to_be_enabled()
    show_me.press("Enter")
    expect(page.locator(".guide li[aria-current=step]")).to_have_attribute("data-step", "located")
    expect(show_me).to_be_focused()
    show_me.press("Enter")
    expect(page.locator(".where-line")).to_contain_text("is strongest in columns")
    expect(page.locator(".guide li[aria-current=step]")).to_have_attribute("data-step", "timed")
    show_me.press("Enter")
    expect(page.locator(".guide li[aria-current=step]")).to_have_attribute("data-step", "coupled")
    expect(page.locator(".timeline-panel figcaption")).to_contain_text(
        "step 20 of 20"
    )  # it has run to the end
    assert grave_problems(page) == []
    show_me.press("Enter")
    expect(page.locator(".guide li.is-done")).to_have_count(4)  # whether or not anything is coupled
    expect(page.locator("table.couplings").first).to_be_visible()


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["desktop", "phone"])
@pytest.mark.parametrize("is_patient", [True, False])
def test_four_clicks_in_one_place_do_the_four_steps_and_nothing_else(
    open_studio: OpenStudio, quick_url: str, size: tuple[int, int], is_patient: bool
) -> None:
    page = open_studio(url=quick_url, size=size)
    show_me = page.get_by_role("button", name="Show me")
    expect(show_me).to_be_enabled()
    place = show_me.bounding_box()
    assert place is not None
    edits = []
    page.on("request", lambda request: edits.append(request) if request.url.endswith("/edit") else None)
    seen = {"edited": ".pictures", "located": ".where-line", "timed": ".timeline-body .plot"}
    for name in STEPS:
        page.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
        if is_patient:
            expect(page.locator(f".guide li[data-step={name}]")).to_have_class("is-done")
        if is_patient and name in seen:
            expect(page.locator(seen[name])).to_be_in_viewport(ratio=1)
    expect(page.locator(".guide li.is-done")).to_have_count(4)
    expect(page.locator("table.couplings").first).to_be_visible()
    expect(page.locator(".bar.is-edited")).to_have_count(1)
    assert len(edits) == 1
    assert len(edits[0].post_data_json["edits"]) == 1
    page.locator("[data-view=studio]").click()
    expect(page.locator("[data-setting=steps]")).to_have_value("20")
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()  # there was one gesture


def test_hidden_steps_stay_hidden_until_they_are_asked_for(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio(url=quick_url)
    guide = page.get_by_role("region", name="First steps")
    guide.get_by_role("button", name="Hide").press("Enter")
    expect(guide).to_be_hidden()
    expect(page.locator("main")).to_be_focused()
    page.reload()
    expect(page.locator(".bar").first).to_be_visible()
    expect(guide).to_be_hidden()
    page.get_by_role("button", name="First steps").click()
    expect(guide).to_be_focused()


def test_storage_that_holds_something_else_is_no_obstacle(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio(url=quick_url)
    page.evaluate("localStorage.setItem('patronus-first-steps', '[]{')")
    page.reload()
    expect(page.get_by_role("region", name="First steps")).to_be_visible()
