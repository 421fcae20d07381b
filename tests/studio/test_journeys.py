"""What people do with the Prototype Studio, over the shipped models."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Locator, Page, Request, expect

from tests.service.conftest import picture
from tests.studio.conftest import OpenStudio

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "example.png"
DEPLOY = ROOT / "deploy"
COMPARED = ("What each stands for", "Do they occur together?", "Does one drag the other along?")


def slider(page: Page, prototype: int) -> Locator:
    return page.locator(f".bars input[data-prototype='{prototype}']")


def is_done(page: Page) -> None:
    """Waits until the change that was asked for is made."""
    expect(page.locator(".pictures-panel .status")).to_contain_text("Done in")


def edited_picture(page: Page) -> str:
    return page.locator(".pictures .frame > img:first-child").nth(2).get_attribute("src") or ""


def difference(one: str, other: str) -> float:
    """The largest of any pixel, of two data: URLs."""
    pixels = [np.asarray(picture(url.split(",")[1]), float) for url in (one, other)]
    return float(np.abs(np.subtract(*pixels)).max())


def body_of(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request.post_data or "null")
    return body


def raise_prototype(page: Page, prototype: int) -> None:
    expect(slider(page, prototype)).to_be_visible()
    slider(page, prototype).focus()
    page.keyboard.press("End")
    is_done(page)


def test_one_slider_changes_the_picture_and_shows_where_when_and_what_else(open_studio: OpenStudio) -> None:
    page = open_studio()
    raise_prototype(page, 21)
    assert edited_picture(page).startswith("data:image/png")
    expect(page.locator(".where-line")).to_contain_text("Prototype 21 is strongest in columns")
    expect(page.locator(".frame .heat.is-shown")).to_have_count(1)
    expect(page.locator(".frame .box:visible")).to_have_count(1)
    expect(page.locator(".effects")).to_contain_text("What else changed")
    expect(page.locator(".timeline-panel")).to_contain_text("Prototype 21 emerges at t =")


def test_undo_redo_and_reset_go_through_several_edits(open_studio: OpenStudio) -> None:
    page = open_studio()
    raise_prototype(page, 21)
    raise_prototype(page, 3)
    assert "edits=21%3D" in page.url
    assert "%2C3%3D" in page.url
    page.keyboard.press("Control+z")
    expect(page.locator(".bar.is-edited")).to_have_count(1)
    page.keyboard.press("Control+Shift+Z")
    expect(page.locator(".bar.is-edited")).to_have_count(2)
    page.get_by_role("button", name="Reset edits").click()
    expect(page.locator(".bar.is-edited")).to_have_count(0)
    expect(page.get_by_role("button", name="Reset edits")).to_be_disabled()


def test_slider_leaves_the_data_only_with_extrapolate(open_studio: OpenStudio) -> None:
    page = open_studio()
    expect(slider(page, 21)).to_be_visible()
    inside = float(slider(page, 21).get_attribute("max") or "nan")
    page.get_by_label("Extrapolate").check()
    expect(slider(page, 21)).not_to_have_attribute("max", str(inside))
    assert float(slider(page, 21).get_attribute("max") or "nan") > inside
    with page.expect_request("**/edit") as sent:
        raise_prototype(page, 21)
    body = body_of(sent.value)
    assert body["extrapolate"] is True
    assert body["edits"][0]["value"] > inside


def test_picture_comes_from_a_file_the_prior_or_the_clipboard(open_studio: OpenStudio) -> None:
    page = open_studio()
    page.locator("#file").set_input_files(EXAMPLE)
    expect(page.locator(".pictures")).to_contain_text("example.png")
    page.get_by_role("button", name="Sample", exact=True).click()
    expect(page.locator(".pictures")).to_contain_text("sample of the prior, seed 1")
    page.evaluate(
        """async () => {
            const file = await (await fetch("/references/5")).blob();
            const data = new DataTransfer();
            data.items.add(new File([file], "pasted.png", { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
        }"""
    )
    expect(page.locator(".pictures")).to_contain_text("pasted.png")
    page.evaluate(
        """async () => {
            const file = await (await fetch("/references/6")).blob();
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([file], "dropped.png", { type: "image/png" }));
            const drop = new DragEvent("drop", { dataTransfer, bubbles: true });
            document.querySelector(".source-panel").dispatchEvent(drop);
        }"""
    )
    expect(page.locator(".pictures")).to_contain_text("dropped.png")


def test_file_that_is_no_picture_is_refused_in_a_sentence(open_studio: OpenStudio, tmp_path: Path) -> None:
    page = open_studio(expected=("status of 422",))
    expect(page.locator(".bar").first).to_be_visible()
    wrong = tmp_path / "notes.png"
    wrong.write_text("not a picture")
    page.locator("#file").set_input_files(wrong)
    alert = page.locator(".source-panel [role=alert]")
    expect(alert).to_contain_text("That did not work.")
    expect(page.locator(".source-panel").get_by_role("button", name="Try again")).to_be_visible()


def test_file_that_is_too_large_is_refused_before_it_is_sent(
    open_studio: OpenStudio, quick_url: str, tmp_path: Path
) -> None:
    page = open_studio(url=quick_url)
    expect(page.locator(".bar").first).to_be_visible()
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(30_000_000)
    page.locator("#file").set_input_files(large)
    expect(page.locator(".source-panel [role=alert]")).to_contain_text(
        "has 30 MB, this page takes up to 20 MB"
    )


def test_sampling_again_gives_the_next_sample(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio(url=quick_url)
    sample = page.get_by_role("button", name="Sample", exact=True)
    for seed in (1, 2):
        sample.click()
        expect(page.locator(".pictures")).to_contain_text(f"sample of the prior, seed {seed}")


def test_model_picker_opens_the_other_model(open_studio: OpenStudio) -> None:
    page = open_studio()
    expect(page.locator(".bar")).to_have_count(30)
    page.get_by_label("Model", exact=True).select_option("cartoon-faces")
    expect(page.locator(".bar")).to_have_count(48)
    raise_prototype(page, 30)
    assert "model=cartoon-faces" in page.url


def test_name_is_given_in_place_and_a_taken_one_is_refused(open_studio: OpenStudio, studio_url: str) -> None:
    page = open_studio(expected=("status of 409",))
    page.get_by_role("button", name="Rename Prototype 21", exact=True).click()
    page.keyboard.type("handle")
    page.keyboard.press("Enter")
    expect(slider(page, 21)).to_have_attribute("aria-label", "handle (prototype 21)")
    page.get_by_role("button", name="Rename Prototype 3", exact=True).click()
    page.keyboard.type("handle")
    page.keyboard.press("Enter")
    expect(page.locator(".bar[data-prototype='3'] [role=alert]")).to_contain_text("handle")
    page.keyboard.press("Escape")
    httpx.put(f"{studio_url}/prototypes/21", json={"name": None}).raise_for_status()


def test_timeline_is_scrubbed_by_keyboard(open_studio: OpenStudio) -> None:
    page = open_studio()
    raise_prototype(page, 21)
    scrub = page.get_by_label("Step of denoising")
    expect(scrub).to_be_visible()
    last = page.locator(".timeline-panel figure img").get_attribute("src")
    scrub.focus()
    page.keyboard.press("Home")
    expect(page.locator(".timeline-panel figcaption")).to_contain_text("step 1 of 20")
    assert page.locator(".timeline-panel figure img").get_attribute("src") != last


@pytest.mark.parametrize("setting", ["rounds=4", "start=auto", "decouple=true"])
def test_timeline_shows_the_run_that_made_the_edited_picture(open_studio: OpenStudio, setting: str) -> None:
    page = open_studio(f"#edits=21=6.5&steps=10&{setting}")
    timeline = page.locator(".timeline-panel")
    expect(timeline).to_contain_text("The run that made the edited picture.")
    expect(timeline).to_contain_text("Emerges, or fades: the step, counted from noise")
    last = timeline.locator("figure img").get_attribute("src") or ""
    assert difference(last, edited_picture(page)) <= 1  # the last x_0_hat is the picture


def test_timeline_says_of_what_does_not_emerge_where_it_was(open_studio: OpenStudio) -> None:
    page = open_studio("#edits=21=6.5&steps=5")
    timeline = page.locator(".timeline-panel")
    expect(timeline).to_contain_text("The run that made the edited picture.")
    timeline.get_by_role("button", name="Code").click()
    page.get_by_role("button", name="JSON", exact=True).click()
    body = json.loads(page.locator("pre.code").inner_text())["body"]
    image = httpx.get(f"{page.url.split('#')[0]}references/0").content
    body["image"] = base64.b64encode(image).decode()
    traced = httpx.post(f"{page.url.split('#')[0]}trace", json=body, timeout=60).json()
    page.keyboard.press("Escape")
    for prototype, emergence in enumerate(traced["images"][0]["emergence"]):
        slider(page, prototype).focus()
        if emergence is None:
            wanted = re.compile(
                f"Prototype {prototype} does not emerge: it is (already there|weak) at the first step"
            )
        else:
            wanted = re.compile(f"Prototype {prototype} (emerges|fades) at t = {emergence}, step \\d of 5")
        expect(timeline).to_contain_text(wanted)
    assert None in traced["images"][0]["emergence"]


def test_timeline_of_samples_is_of_the_first_of_them(open_studio: OpenStudio) -> None:
    page = open_studio("#method=generate&edits=21=6.5&steps=5&num_images=2&seed=7")
    timeline = page.locator(".timeline-panel")
    expect(timeline).to_contain_text("The run that made the first sample.")
    last = timeline.locator("figure img").get_attribute("src") or ""
    assert difference(last, page.locator(".several img").first.get_attribute("src") or "") <= 1


def test_timeline_without_an_edit_is_of_the_pictures_own_way_back(open_studio: OpenStudio) -> None:
    page = open_studio("#steps=5")
    page.get_by_role("button", name="Trace").click()
    expect(page.locator(".timeline-panel")).to_contain_text("nothing changed")


def test_undone_edit_leaves_no_timeline_behind(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio(url=quick_url)
    raise_prototype(page, 21)
    timeline = page.locator(".timeline-panel")
    expect(timeline.get_by_role("button", name="Play")).to_be_visible()
    page.keyboard.press("Control+z")
    expect(timeline.locator(".timeline-body")).to_be_hidden()
    expect(timeline).not_to_contain_text("emerges at")
    page.keyboard.press("Control+Shift+Z")
    page.keyboard.press("Control+z")  # before what redo asks for has come
    expect(timeline.locator(".status")).to_have_attribute("data-state", "idle")
    expect(page.locator(".pictures-panel .status")).to_have_attribute("data-state", "idle")


def test_sampling_anew_takes_seed_and_sampler(open_studio: OpenStudio) -> None:
    page = open_studio()
    page.get_by_text("How it is done").click()
    with page.expect_request("**/generate") as sent:
        page.get_by_label("The picture is").select_option("generate")
    assert body_of(sent.value)["sampler"] == "ddim"
    is_done(page)
    with page.expect_request("**/generate") as sent:
        page.get_by_label("Sampler").select_option("dpmpp_2m")
    is_done(page)
    with page.expect_request("**/generate") as sent:
        page.get_by_label("Pictures", exact=True).fill("4")
        page.get_by_label("Pictures", exact=True).press("Tab")
    body = body_of(sent.value)
    assert (body["num_images"], body["sampler"]) == (4, "dpmpp_2m")
    expect(page.locator(".several img")).to_have_count(4)


def test_every_way_of_editing_is_sent(open_studio: OpenStudio) -> None:
    page = open_studio("#edits=21=5&steps=5")
    is_done(page)
    page.get_by_text("How it is done").click()
    choices = {
        "Starts at": ("auto", "start"),
        "Held prototypes": ("others", "preserve"),
        "Inversion": ("bdia", "inversion"),
    }
    for label, (option, field) in choices.items():
        with page.expect_request("**/edit") as sent:
            page.get_by_label(label, exact=True).select_option(option)
        assert body_of(sent.value)[field] == option
    is_done(page)


def test_link_opens_the_same_state(open_studio: OpenStudio) -> None:
    page = open_studio("#model=cartoon-faces&picture=reference-3&edits=30=5&steps=10")
    is_done(page)
    again = open_studio(page.url[page.url.index("#") :])
    is_done(again)
    assert edited_picture(again) == edited_picture(page)
    assert slider(again, 30).input_value() == slider(page, 30).input_value()


def test_export_gives_files_and_code_that_runs(
    open_studio: OpenStudio, studio_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_studio("#picture=reference-0")
    raise_prototype(page, 21)
    page.get_by_role("button", name="Export").click()
    code = page.locator("pre.code")
    expect(code).to_contain_text(f"{studio_url}/edit")
    page.get_by_role("button", name="JSON", exact=True).click()
    assert json.loads(code.inner_text())["body"]["edits"][0]["prototype"] == 21
    page.get_by_role("button", name="Python").click()
    monkeypatch.syspath_prepend(DEPLOY)  # where `patronus_server` is
    monkeypatch.chdir(tmp_path)
    exec(compile(code.inner_text(), "exported", "exec"), {})
    shown = base64.b64decode(edited_picture(page).split(",")[1])
    assert (tmp_path / "edited.png").read_bytes() == shown
    for name, suffix in (("Save PNG", ".png"), ("Save JSON", ".json")):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        assert download.value.suggested_filename == f"fashion-mnist{suffix}"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("name", ['it\'s "a";type=b, é.png', "picture.png"])
def test_exported_curl_gives_the_same_answer(
    open_studio: OpenStudio, quick_url: str, tmp_path: Path, name: str
) -> None:
    page = open_studio(url=quick_url)
    shutil.copy(EXAMPLE, tmp_path / name)
    expect(page.locator(".bar").first).to_be_visible()
    page.locator("#file").set_input_files(tmp_path / name)
    expect(page.locator(".pictures")).to_contain_text(name)
    raise_prototype(page, 21)
    page.get_by_role("button", name="Export").click()
    code = page.locator("pre.code").inner_text()
    done = subprocess.run(["sh", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert edited_picture(page).endswith(json.loads(done.stdout)["image"])


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_code_of_every_question_runs(
    open_studio: OpenStudio, quick_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(DEPLOY)  # where `patronus_server` is
    monkeypatch.chdir(tmp_path)
    page = open_studio("#view=compare", url=quick_url)
    for button in [f"{title} Code" for title in COMPARED]:
        page.get_by_role("button", name=button).click()
        runs_as_shown(page, tmp_path)
    page.locator("[data-view=prototypes]").click()
    page.get_by_role("button", name="Code", exact=True).click()
    runs_as_shown(page, tmp_path)
    page.get_by_role("button", name="Prototype 3: details").click()
    page.get_by_role("dialog").get_by_role("button", name="Code", exact=True).click()
    runs_as_shown(page, tmp_path)


def runs_as_shown(page: Page, directory: Path) -> None:
    """In the dialog that is open, which is then closed."""
    code = page.locator("pre.code")
    page.get_by_role("button", name="curl").click()
    done = subprocess.run(["sh", "-c", code.inner_text()], cwd=directory, capture_output=True, check=True)
    assert json.loads(done.stdout)["model"]["name"] == "fashion-mnist"
    page.get_by_role("button", name="Python").click()
    exec(compile(code.inner_text(), "exported", "exec"), {})
    page.keyboard.press("Escape")


def attribute(page: Page, name: str) -> Locator:
    return page.locator(f".attribute[data-attribute='{name}']")


def test_attribute_is_raised_exported_and_undone(
    open_studio: OpenStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_studio("#picture=reference-0&steps=10")
    more = page.get_by_role("button", name="More Bag", exact=True)
    with page.expect_request("**/edit") as sent:
        more.click()
    assert body_of(sent.value)["edits"] == [{"attribute": "Bag", "op": "max"}]
    is_done(page)
    shown = base64.b64decode(edited_picture(page).split(",")[1])
    expect(more).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".effects")).to_contain_text(
        re.compile(r"Bag log-odds [+−][\d.]+ → [+−][\d.]+ of [+−][\d.]+")
    )
    page.get_by_role("button", name="Export").click()
    code = page.locator("pre.code")
    expect(code).to_contain_text('{"attribute":"Bag","op":"max"}')
    page.get_by_role("button", name="Python").click()
    expect(code).to_contain_text('Edit(None, "max", attribute="Bag")')
    monkeypatch.syspath_prepend(DEPLOY)  # where `patronus_server` is
    monkeypatch.chdir(tmp_path)
    exec(compile(code.inner_text(), "exported", "exec"), {})
    assert (tmp_path / "edited.png").read_bytes() == shown
    page.keyboard.press("Escape")
    page.keyboard.press("Control+z")
    expect(more).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".effects")).to_be_hidden()
    page.keyboard.press("Control+Shift+Z")
    expect(more).to_have_attribute("aria-pressed", "true")


def test_attribute_slider_sends_log_odds_that_the_link_carries(open_studio: OpenStudio) -> None:
    page = open_studio("#model=cartoon-faces&picture=reference-3&edits=@glasses=max,30=5&steps=5")
    is_done(page)
    log_odds = page.get_by_label("glasses, log-odds", exact=True)
    log_odds.focus()
    with page.expect_request("**/edit") as sent:
        page.keyboard.press("PageDown")
    edit = body_of(sent.value)["edits"][0]
    assert (edit["attribute"], edit["op"]) == ("glasses", "set")
    expect(page.get_by_role("button", name="More glasses", exact=True)).to_have_attribute(
        "aria-pressed", "false"
    )
    is_done(page)
    again = open_studio(page.url[page.url.index("#") :])
    is_done(again)
    assert edited_picture(again) == edited_picture(page)
    again_odds = again.get_by_label("glasses, log-odds", exact=True)
    assert float(again_odds.input_value()) == pytest.approx(edit["value"], abs=0.3)  # one step of the slider
    again.get_by_role("button", name="Reset glasses", exact=True).click()
    expect(attribute(again, "glasses").get_by_role("slider")).to_be_hidden()


def test_prototypes_are_found_by_label_and_shown_in_detail(open_studio: OpenStudio) -> None:
    page = open_studio("#model=cartoon-faces&view=prototypes")
    expect(page.locator(".card")).to_have_count(48)
    page.get_by_label("Find prototypes").fill("light skin")
    expect(page.locator(".card")).not_to_have_count(0)
    page.get_by_label("Find prototypes").fill("hat")
    expect(page.locator(".card").first).to_be_visible()
    page.get_by_role("button", name="Prototype 30: details").click()
    expect(page.get_by_role("dialog")).to_contain_text("more with hat")
    expect(page.get_by_role("dialog")).to_contain_text("it changes itself by")


def test_two_prototypes_are_compared(open_studio: OpenStudio) -> None:
    page = open_studio("#model=cartoon-faces&view=compare")
    expect(page.locator(".pair .strip")).to_have_count(2)
    expect(page.locator(".pair .dot")).to_have_count(32)
    expect(page.locator(".pair")).to_contain_text("Correlation in the training data")
    expect(page.locator(".pair")).to_contain_text(re.compile(r"Raising Prototype \d+ changes Prototype \d+"))


def test_diagnosis_ranks_couplings_and_saves_its_report(open_studio: OpenStudio) -> None:
    page = open_studio()
    raise_prototype(page, 21)
    page.get_by_role("button", name=re.compile("Measure whether")).first.click()
    rows = page.locator("table.couplings").first.locator("tbody tr")
    expect(rows.first).to_contain_text("Prototype 21")
    expect(rows.first).to_contain_text("to")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save report (HTML)").click()
    assert "<html" in Path(download.value.path()).read_text()


def test_everything_is_reached_by_keyboard(open_studio: OpenStudio) -> None:
    page = open_studio()
    expect(page.locator(".bar").first).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(120):  # as many stops as there are before the first slider, at most
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.bars input[type=range]')"):
            break
    page.keyboard.press("End")
    is_done(page)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the reset button of the same row
    expect(page.locator(".bar.is-edited")).to_have_count(0)
    assert page.evaluate("document.activeElement.matches('.bars input[type=range]')")
