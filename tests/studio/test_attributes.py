"""Attributes in the Prototype Studio: where they act, what an edit of one drags along, its diagnosis."""

from __future__ import annotations

import json
import re

from playwright.sync_api import Page, Route, expect

from tests.studio.conftest import GatedRunner, OpenStudio
from tests.studio.test_accessibility import grave_problems
from tests.studio.test_journeys import attribute, body_of, is_done

NOTHING_YET = "Nothing diagnosed yet"


def choose(page: Page, change: str, *, samples: int = 6, steps: int = 2) -> None:
    """What the diagnosis is of, which is kept small."""
    page.get_by_label("Change", exact=True).select_option(change)
    page.get_by_label("Samples", exact=True).fill(str(samples))
    page.get_by_label("Steps", exact=True).last.fill(str(steps))


def diagnose(page: Page) -> None:
    page.get_by_role("button", name="Diagnose", exact=True).last.click()


def test_smile_says_that_the_skin_goes_along(open_studio: OpenStudio) -> None:
    page = open_studio("#model=cartoon-faces&picture=reference-4&edits=@smile=max")
    is_done(page)
    effects = page.locator(".effects")
    expect(effects).to_contain_text("What else changed: attributes")
    skin = effects.locator(".of-attribute").filter(has_text="skin").first
    expect(skin).to_contain_text(
        re.compile(r"skin [+−][\d.]+ sd, asked [+−][\d.]+; log-odds [+−][\d.]+ → [+−][\d.]+")
    )
    with page.expect_request("**/diagnose") as sent:
        skin.get_by_role("button", name=re.compile("Measure whether smile and .*skin are coupled")).click()
    assert body_of(sent.value)["attributes"] == ["smile"]
    expect(page.get_by_label("Change", exact=True)).to_have_value("@smile")


def test_what_moved_along_is_held_by_a_click(open_studio: OpenStudio) -> None:
    page = open_studio("#model=cartoon-faces&picture=reference-4&edits=@smile=max")
    is_done(page)
    skin = page.locator(".effects .of-attribute").filter(has_text="skin").first
    name = skin.get_by_role("button", name=re.compile("^Hold ")).get_attribute("aria-label")
    assert name is not None
    told = name.removeprefix("Hold ").replace(" ", "_")
    with page.expect_response("**/edit") as answered:
        skin.get_by_role("button", name=name).press("Enter")
    assert json.loads(answered.value.request.post_data or "")["preserve_attributes"] == [told]
    is_done(page)
    still = page.locator(".effects").get_by_role("button", name=name)
    expect(page.locator(".effects")).to_contain_text("Held: attributes")
    expect(still).to_be_focused()  # also where the row has moved to what is held
    expect(still).to_have_attribute("aria-pressed", "true")
    hold = page.locator(".attributes").get_by_role("button", name=name)
    expect(hold).to_have_attribute("aria-pressed", "true")
    page.wait_for_url(f"**held={told}*")
    page.get_by_role("button", name="Undo").click()
    expect(hold).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="Redo").click()
    expect(hold).to_have_attribute("aria-pressed", "true")
    with page.expect_request("**/edit") as sent:  # what is edited is not held any more
        page.get_by_role("button", name=f"More {name.removeprefix('Hold ')}", exact=True).click()
    assert "preserve_attributes" not in body_of(sent.value)
    expect(hold).to_be_disabled()


def test_a_link_holds_attributes(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio("#edits=@Bag=max&held=Coat,T-shirt%2Ftop,Bag,Hat", url=quick_url)
    with page.expect_request("**/edit") as sent:
        page.get_by_role("button", name="More Trouser", exact=True).click()
    assert body_of(sent.value)["preserve_attributes"] == ["Coat", "T-shirt/top"]


def test_hold_of_the_summary_is_let_go_at_once_and_keeps_the_focus(
    gated: tuple[str, GatedRunner], open_studio: OpenStudio
) -> None:
    url, runner = gated
    page = open_studio("#edits=@Bag=max&held=Coat", url=url)
    is_done(page)
    hold = page.locator(".effects").get_by_role("button", name="Hold Coat", exact=True)
    expect(hold).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".timeline-panel .status")).to_be_hidden()
    runner.gate.clear()
    hold.press("Enter")
    expect(hold).to_have_attribute("aria-pressed", "false")  # before there is a picture
    expect(page.get_by_role("button", name="Trace")).to_be_disabled()  # of a run that is not there yet
    runner.gate.set()
    is_done(page)
    expect(page.locator(".effects")).not_to_contain_text("Held: attributes")
    assert page.evaluate("() => document.activeElement.closest('.effects') !== null")
    page.keyboard.press("Control+z")
    expect(page.locator(".effects")).to_contain_text("Held: attributes")


def test_what_is_held_gets_the_rounds_that_it_needs(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio("#edits=@Bag=max&rounds=1", url=quick_url)
    is_done(page)
    page.get_by_text("How it is done").click()
    rounds = page.locator("[data-setting=rounds]")
    expect(rounds).to_have_value("1")
    hold = page.locator(".attributes").get_by_role("button", name="Hold Coat", exact=True)
    with page.expect_request("**/edit") as sent:
        hold.click()
    assert body_of(sent.value)["rounds"] == 2
    expect(rounds).to_have_value("2")
    expect(page.get_by_label("Rounds, 2 or more to hold")).to_be_visible()
    is_done(page)
    with page.expect_request("**/edit") as sent:
        hold.click()
    assert body_of(sent.value)["rounds"] == 1  # what was chosen holds again


def test_nothing_is_held_in_samples_anew_and_the_page_says_so(
    open_studio: OpenStudio, quick_url: str
) -> None:
    page = open_studio("#edits=@Bag=max&held=Coat&method=generate", url=quick_url)
    is_done(page)
    hold = page.locator(".attributes").get_by_role("button", name="Hold Coat", exact=True)
    expect(hold).to_be_disabled()
    expect(hold).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".attributes-panel .legend")).to_contain_text("this one is sampled anew")
    page.get_by_text("How it is done").click()
    with page.expect_request("**/edit") as sent:
        page.get_by_label("The picture is").select_option("edit")
    assert body_of(sent.value)["preserve_attributes"] == ["Coat"]
    expect(hold).to_have_attribute("aria-pressed", "true")


def test_names_of_attributes_are_whole_on_a_phone(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio("#edits=@Bag=max&held=Coat", url=quick_url, size=(360, 740))
    is_done(page)
    names = page.locator(".attribute-name")
    expect(names).to_have_count(10)
    assert [
        name for name in names.all() if name.evaluate("node => node.scrollWidth > node.clientWidth")
    ] == []
    assert grave_problems(page) == []


def test_pointing_at_an_attribute_shows_where_its_strongest_prototype_is(
    open_studio: OpenStudio, quick_url: str
) -> None:
    page = open_studio("#model=cartoon-faces", url=quick_url)
    with page.expect_request("**/locate") as sent:
        attribute(page, "glasses").hover()
    where = page.locator(".where-line")
    expect(where).to_contain_text(re.compile("Glasses is carried by .* is strongest in columns"))
    expect(page.locator(".frame .heat.is-shown")).to_have_count(1)
    (located,) = body_of(sent.value)["prototypes"]
    expect(where).to_contain_text(f"Prototype {located}")
    page.get_by_role("button", name="More hat", exact=True).focus()
    expect(where).to_contain_text("Hat is carried by")
    page.locator(f".bars input[data-prototype='{located}']").focus()
    expect(where).not_to_contain_text("carried by")
    expect(where).to_contain_text(f"Prototype {located} is strongest in columns")


def test_attribute_is_measured_from_its_own_row(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio("#edits=@Bag=max", url=quick_url)
    is_done(page)
    with page.expect_request("**/diagnose") as sent:
        page.get_by_role("button", name="Measure what Bag drags along").press("Enter")
    assert body_of(sent.value)["attributes"] == ["Bag"]
    expect(page.locator("main")).to_be_focused()
    expect(page.get_by_label("Change", exact=True)).to_have_value("@Bag")


def test_diagnosis_of_an_attribute_tells_the_asked_from_what_goes_beyond(open_studio: OpenStudio) -> None:
    page = open_studio("#view=diagnose")
    choose(page, "@Bag")
    with page.expect_request("**/diagnose") as sent:
        diagnose(page)
    assert body_of(sent.value)["attributes"] == ["Bag"]
    assert "prototypes" not in body_of(sent.value)
    tables = page.locator("table.couplings")
    expect(tables).to_have_count(2)
    expect(tables.first.locator("caption")).to_have_text("Attributes that changed along, ranked")
    row = tables.first.locator("tbody tr").first
    expect(row.locator("td").first).to_have_text("Bag")
    expect(row).to_contain_text(re.compile(r"asked [+−][\d.]+, (beyond it [+−]|short of it by )[\d.]+"))
    panel = page.locator("section[aria-labelledby=diagnose-title]")
    expect(panel).to_contain_text(re.compile(r"Changed: Bag, by \+[\d.]+ sd"))
    expect(panel).to_contain_text(re.compile(r"\d+ of 30 effects on prototypes .*, \d+ of 9 on attributes"))
    assert grave_problems(page) == []
    page.get_by_role("button", name="Dark theme").click()
    assert grave_problems(page) == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_edited_prototypes_and_attributes_are_diagnosed_together(
    open_studio: OpenStudio, quick_url: str
) -> None:
    page = open_studio("#edits=@Bag=max,21=5&view=diagnose", url=quick_url)
    choose(page, "edited")
    with page.expect_request("**/diagnose") as sent:
        diagnose(page)
    body = body_of(sent.value)
    assert (body["prototypes"], body["attributes"]) == ([21], ["Bag"])
    expect(page.locator("table.couplings")).to_have_count(2)
    choose(page, "@")
    with page.expect_request("**/diagnose") as sent:
        diagnose(page)
    assert len(body_of(sent.value)["attributes"]) == 10


def test_nothing_is_said_to_be_missing_while_a_diagnosis_runs(
    open_studio: OpenStudio, quick_url: str
) -> None:
    page = open_studio("#view=diagnose", url=quick_url)
    view = page.locator("section[aria-labelledby=diagnose-title]")
    expect(view).to_contain_text(NOTHING_YET)
    choose(page, "@Bag")
    held: list[Route] = []
    page.route("**/diagnose", lambda route: held.append(route))
    with page.expect_request("**/diagnose"):
        diagnose(page)
    expect(view.locator(".status").first).to_contain_text("Generating samples")
    expect(view).not_to_contain_text(NOTHING_YET)
    (route,) = held
    route.continue_()
    expect(view.locator("table.couplings")).to_have_count(2)


def test_compared_prototypes_are_not_yet_diagnosed(open_studio: OpenStudio) -> None:
    page = open_studio("#view=compare")
    for i in (0, 1):  # neither changes the other, and 1 changes 20 and 22
        page.locator(f"[data-compared='{i}']").select_option(str(i))
    expect(page.locator(".pair")).to_contain_text("Raising Prototype 0 changes Prototype 1")
    page.locator("[data-view=studio]").click()
    expect(page.locator(".guide li[data-step=coupled]")).not_to_have_class(re.compile("is-done"))
