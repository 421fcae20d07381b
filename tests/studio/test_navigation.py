"""Links, the browser's history, and what a page keeps on the way."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Route, expect

from tests.studio.conftest import OpenStudio
from tests.studio.test_journeys import EXAMPLE, body_of, is_done, raise_prototype


def test_back_and_forward_go_through_the_views_and_keep_the_edits(
    open_studio: OpenStudio, quick_url: str
) -> None:
    page = open_studio(url=quick_url)
    raise_prototype(page, 21)
    page.locator("[data-view=prototypes]").click()
    expect(page).to_have_title("Prototypes · Prototype Studio")
    page.go_back()
    expect(page).to_have_title("Prototype Studio")
    expect(page.locator(".bar.is-edited")).to_have_count(1)
    page.go_forward()
    expect(page.locator(".gallery")).to_be_visible()
    assert "edits=21%3D" in page.url


def test_view_that_is_chosen_while_the_page_still_loads_stays(
    open_studio: OpenStudio, quick_url: str
) -> None:
    page = open_studio("#edits=21=5", url=quick_url)
    is_done(page)
    held: list[Route] = []
    page.route("**/models", lambda route: held.append(route))
    with page.expect_request("**/models"):
        page.reload()
    page.locator("[data-view=compare]").click()
    (route,) = held
    route.continue_()
    expect(page.locator(".pair .facts").nth(1)).to_be_visible()
    expect(page).to_have_title("Compare · Prototype Studio")
    page.locator("[data-view=studio]").click()
    expect(page.locator(".bar.is-edited")).to_have_count(1)


def test_picture_that_is_chosen_while_the_page_still_loads_stays(
    open_studio: OpenStudio, quick_url: str
) -> None:
    page = open_studio(url=quick_url)
    expect(page.locator(".pictures")).to_contain_text("reference picture 0")
    held: list[Route] = []
    page.route("**/references?*", lambda route: held.append(route))
    with page.expect_request("**/references?*"):
        page.reload()
    page.locator("#file").set_input_files(EXAMPLE)
    (route,) = held
    route.continue_()
    expect(page.locator(".pictures")).to_contain_text("example.png")


@pytest.mark.parametrize("side", [28, 1500])
def test_reload_keeps_an_uploaded_picture_and_its_edits(
    open_studio: OpenStudio, quick_url: str, tmp_path: Path, side: int
) -> None:
    """A large picture is kept reduced."""
    noise = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    Image.fromarray(noise).save(tmp_path / "own.png", compress_level=0)
    page = open_studio(url=quick_url)
    expect(page.locator(".bar").first).to_be_visible()
    page.locator("#file").set_input_files(tmp_path / "own.png")
    expect(page.locator(".pictures")).to_contain_text("own.png")
    raise_prototype(page, 21)
    page.reload()
    expect(page.locator(".pictures")).to_contain_text("own.png")
    is_done(page)
    expect(page.locator(".bar.is-edited")).to_have_count(1)
    assert page.evaluate("history.state.upload.base64.length") < 10_000


EDITS_OVER_A_LINK = """async (model) => {
    const { toHash, fromHash } = await import("/studio/js/url_hash.js");
    const { DEFAULT_SETTINGS: settings } = await import("/studio/js/settings.js");
    const { prototypes, attributes } = await (await fetch(`/prototypes?model=${model}`)).json();
    const set = (kind, index, value) => ({ target: { kind, index }, op: "set", value });
    const edits = [
        ...prototypes.map(({ index, statistics }) => set("prototype", index, statistics.quantiles["0.99"])),
        ...attributes.map(({ name, low }) => set("attribute", name, low)),
        ...[1e-7, 0, 1 / 3, 7.011723].map((value, i) => set("prototype", i, value)),
        { target: { kind: "attribute", index: "a=b, c & %" }, op: "max" },
    ];
    const state = { model, source: null, edits, held: [], settings, view: "studio" };
    return [edits, fromHash(toHash(state)).edits];
}"""


@pytest.mark.parametrize("model", ["fashion-mnist", "cartoon-faces"])
def test_link_gives_back_every_edit_to_the_last_digit(
    open_studio: OpenStudio, quick_url: str, model: str
) -> None:
    sent, received = open_studio(url=quick_url).evaluate(EDITS_OVER_A_LINK, model)
    assert received == sent


@pytest.mark.parametrize("prototype", [3, 21])
def test_link_to_the_end_of_the_data_is_within_the_data(
    open_studio: OpenStudio, quick_url: str, prototype: int
) -> None:
    page = open_studio(url=quick_url)
    with page.expect_request("**/edit") as sent:
        raise_prototype(page, prototype)
    again = open_studio(url=quick_url)
    with again.expect_response("**/edit") as answer:
        again.evaluate("hash => (location.hash = hash)", page.url[page.url.index("#") :])
    assert body_of(answer.value.request)["edits"] == body_of(sent.value)["edits"]
    is_done(again)
    expect(again.locator(".effects")).to_contain_text("Asked and reached")
    expect(again.locator(".effects")).not_to_contain_text("beyond the data")


def test_link_brings_what_it_edits_into_view_and_the_page_stays(
    open_studio: OpenStudio, quick_url: str
) -> None:
    page = open_studio(
        "#model=cartoon-faces&edits=@hat=max,@glasses=max,7=3&view=prototypes",
        url=quick_url,
        size=(1280, 900),
    )
    expect(page.locator(".card")).to_have_count(48)
    page.locator("[data-view=studio]").click()
    rows = [page.locator(f".{kind}.is-edited").first for kind in ("attribute", "bar")]
    for row in rows:
        expect(row).to_be_in_viewport(ratio=1)
    expect(page).not_to_have_url(re.compile("view="))
    page.reload()
    for row in rows:
        expect(row).to_be_in_viewport(ratio=1)
    assert page.evaluate("scrollY") == 0


def test_link_names_a_sample_of_the_largest_seed(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio("#picture=sample-4294967295", url=quick_url)
    expect(page.locator(".pictures")).to_contain_text("sample of the prior, seed 4294967295")


def test_another_model_is_given_the_users_own_picture(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio(url=quick_url)
    expect(page.locator(".bar").first).to_be_visible()
    page.locator("#file").set_input_files(EXAMPLE)
    expect(page.locator(".pictures")).to_contain_text("example.png")
    page.get_by_label("Model", exact=True).select_option("cartoon-faces")
    expect(page.locator(".bar")).to_have_count(48)
    expect(page.locator(".pictures")).to_contain_text("example.png")


def test_link_put_into_the_address_is_opened(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio(url=quick_url)
    raise_prototype(page, 21)
    page.evaluate("location.hash = '#picture=reference-2&edits=3=4&steps=5'")
    expect(page.locator(".pictures")).to_contain_text("reference picture 2")
    is_done(page)
    expect(page.locator(".bar.is-edited")).to_have_attribute("data-prototype", "3")


def test_back_from_another_link_opens_the_one_before(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio("#picture=reference-1&edits=21=5&steps=5", url=quick_url)
    is_done(page)
    page.evaluate("location.hash = '#picture=reference-2&edits=3=4&steps=5&view=prototypes'")
    expect(page).to_have_title("Prototypes · Prototype Studio")
    page.go_back()
    expect(page).to_have_title("Prototype Studio")
    expect(page.locator(".pictures")).to_contain_text("reference picture 1")
    expect(page.locator(".bar.is-edited")).to_have_attribute("data-prototype", "21")
    page.go_forward()
    expect(page).to_have_title("Prototypes · Prototype Studio")
    expect(page.locator(".pictures")).to_contain_text("reference picture 2")
    expect(page.locator(".bar.is-edited")).to_have_attribute("data-prototype", "3")
    assert "picture=reference-2" in page.url


def test_link_that_cannot_be_opened_yet_stays_in_the_address(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio(url=quick_url, expected=("status of 500",))
    expect(page.locator(".bar").first).to_be_visible()
    page.route("**/references?*", lambda route: route.fulfill(status=500))
    page.evaluate("location.hash = '#picture=reference-2&view=prototypes'")
    expect(page.locator("#main > .status [role=alert]")).to_contain_text("That did not work.")
    expect(page).to_have_title("Prototype Studio")
    page.unroute("**/references?*")
    page.reload()
    expect(page).to_have_title("Prototypes · Prototype Studio")
    expect(page.locator(".pictures")).to_contain_text("reference picture 2")


def test_skip_link_keeps_the_state_and_moves_the_focus(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio("#model=cartoon-faces&edits=30=5&steps=5", url=quick_url)
    is_done(page)
    page.get_by_role("link", name="Skip to the page").focus()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    assert "model=cartoon-faces" in page.url
    expect(page.locator(".bar.is-edited")).to_have_count(1)


def test_what_a_link_names_wrongly_is_left_out(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio(
        "#view=nothing&method=magic&steps=100000&rounds=&seed=x&edits=21=5,99=1,x=2,@No=max", url=quick_url
    )
    is_done(page)
    expect(page.locator("[data-view=studio]")).to_have_attribute("aria-current", "page")
    expect(page.locator(".bar.is-edited")).to_have_count(1)
    expect(page).to_have_url(f"{quick_url}/#model=fashion-mnist&picture=reference-0&edits=21%3D5&steps=200")


def test_focus_goes_along_into_another_view(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio("#view=prototypes", url=quick_url)
    page.get_by_role("button", name="Prototype 3: details").press("Enter")
    page.get_by_role("button", name="Diagnose its couplings").press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_model_that_changes_under_a_comparison_ends_it(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio("#model=cartoon-faces&view=compare", url=quick_url)
    page.locator("[data-compared='0']").select_option("47")
    page.locator("[data-view=studio]").click()
    page.get_by_label("Model", exact=True).select_option("fashion-mnist")
    expect(page.locator(".bar")).to_have_count(30)
    page.locator("[data-view=compare]").click()
    expect(page.locator("[data-compared='0'] option")).to_have_count(30)
    expect(page.locator(".pair .strip")).to_have_count(2)
