"""What the page says, and does, when the service is busy, away, closed, or slower than its user."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from service.settings import SHIPPED_BUNDLE, Settings
from tests.service.conftest import b64, eventually, fake_runner, png, serving
from tests.studio.conftest import GatedRunner, OpenStudio
from tests.studio.test_journeys import EXAMPLE

DISCONNECTED = (
    'patronus_requests_total{endpoint="edit",finished_reason="disconnected",model_name="fashion-mnist"}'
)


def press_on_slider(page: Page, key: str, prototype: int = 21) -> None:
    page.locator(f".bars input[data-prototype='{prototype}']").focus()
    page.keyboard.press(key)


def unanswered(route: Route) -> None:
    """The request arrives, and nothing comes of it."""


def sample(url: str) -> int:
    return httpx.post(f"{url}/generate", json={"steps": 1, "activations": [3.0] * 30}, timeout=60).status_code


def test_slider_that_moves_on_aborts_the_request_that_runs(
    gated: tuple[str, GatedRunner], open_studio: OpenStudio
) -> None:
    url, runner = gated
    page = open_studio(url=url)
    expect(page.locator(".bar").first).to_be_visible()
    runner.gate.clear()
    with page.expect_request("**/edit"):
        press_on_slider(page, "End")
    with page.expect_request("**/edit"):
        press_on_slider(page, "Home")
    runner.gate.set()
    eventually(url, DISCONNECTED, 1)
    expect(page.locator(".pictures-panel .status")).to_contain_text("Done in")


def test_full_queue_is_waited_for_and_said(gated: tuple[str, GatedRunner], open_studio: OpenStudio) -> None:
    url, runner = gated
    page = open_studio(url=url, expected=("status of 503",))
    expect(page.locator(".bar").first).to_be_visible()
    runner.gate.clear()
    with ThreadPoolExecutor() as others:
        running = others.submit(sample, url)
        assert runner.is_held.wait(30)
        waiting = [others.submit(sample, url) for _ in range(3)]  # of which two find a place
        assert next(as_completed(waiting)).result() == 503
        press_on_slider(page, "End")
        status = page.locator(".pictures-panel .status")
        expect(status).to_contain_text("The service is busy.")
        expect(status).to_contain_text("Trying again in 1 s.")
        runner.gate.set()
        assert running.result() == 200
    expect(status).to_contain_text("Done in")


def test_service_that_is_away_is_said_to_be(open_studio: OpenStudio) -> None:
    page = open_studio(expected=("ERR_CONNECTION_REFUSED",))
    expect(page.locator(".bar").first).to_be_visible()
    page.clock.install()
    page.route("**/edit", lambda route: route.abort("connectionrefused"))
    press_on_slider(page, "End")
    status = page.locator(".pictures-panel .status")
    page.clock.run_for(200)
    expect(status).to_contain_text("The service does not answer. Trying again in 1 s.")
    for _ in range(8):
        page.clock.run_for(10_000)
    expect(status).to_contain_text("It may have been stopped, or the network is down.")
    page.unroute("**/edit")
    page.get_by_role("button", name="Try again").click()
    expect(status).to_contain_text("Done in")


def test_answer_that_never_begins_is_given_up(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio(url=quick_url)
    expect(page.locator(".bar").first).to_be_visible()
    page.clock.install()
    page.route("**/edit", unanswered)
    press_on_slider(page, "End")
    page.clock.run_for(200)
    status = page.locator(".pictures-panel .status")
    expect(status).to_contain_text("Denoising…")
    page.clock.run_for(150_000)
    expect(status).to_contain_text("The service took longer than this page waits.")


def test_trace_of_an_edit_that_was_undone_is_given_up(open_studio: OpenStudio, quick_url: str) -> None:
    page = open_studio(url=quick_url)
    expect(page.locator(".bar").first).to_be_visible()
    press_on_slider(page, "End")
    timeline = page.locator(".timeline-panel")
    expect(timeline.get_by_role("button", name="Play")).to_be_visible()
    shown = timeline.locator(".timeline-body").inner_html()
    page.route("**/trace", unanswered)
    with page.expect_request("**/trace") as asked:
        press_on_slider(page, "End", prototype=3)  # another gesture: undone by itself
    with page.expect_event("requestfailed", lambda request: request == asked.value):
        page.keyboard.press("Control+z")
    expect(page.locator(".pictures-panel .status")).to_contain_text("Done in")
    expect(timeline.locator(".status")).to_have_attribute("data-state", "idle")
    page.locator(".bars input[data-prototype='21']").focus()  # whose curve is told from the others
    expect(timeline.locator(".timeline-body")).to_have_js_property("innerHTML", shown)


@pytest.mark.parametrize("is_read", [True, False])
def test_picture_chosen_while_a_model_opens_goes_along(
    open_studio: OpenStudio, quick_url: str, is_read: bool
) -> None:
    page = open_studio(url=quick_url)
    expect(page.locator(".bar").first).to_be_visible()
    held: list[Route] = []
    page.route("**/prototypes?model=cartoon-faces", lambda route: held.append(route))
    with page.expect_request("**/prototypes?model=cartoon-faces"):
        page.get_by_label("Model", exact=True).select_option("cartoon-faces")
    if not is_read:
        page.route("**/encode", unanswered, times=1)
    with page.expect_request("**/encode"):
        page.locator("#file").set_input_files(EXAMPLE)
    if is_read:
        expect(page.locator(".pictures")).to_contain_text("example.png")
    held[0].continue_()
    expect(page.locator(".bar")).to_have_count(48)
    expect(page.locator(".pictures")).to_contain_text("example.png")


def test_picture_that_the_service_forgot_is_sent_again(
    open_studio: OpenStudio, studio_settings: Settings, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0)
    large = tmp_path / "large.png"
    Image.fromarray(noise.integers(0, 256, (400, 400), np.uint8)).save(large)  # too much to be sent each time
    settings = replace(studio_settings, bundle=(SHIPPED_BUNDLE,), cache_bytes=2**17)
    with serving(settings, fake_runner) as url:
        page = open_studio(url=url, expected=("status of 404",))
        expect(page.locator(".bar").first).to_be_visible()
        page.locator("#file").set_input_files(large)
        expect(page.locator(".pictures")).to_contain_text("large.png")
        others = [b64(png(Image.fromarray(noise.integers(0, 256, (32, 32), np.uint8)))) for _ in range(64)]
        httpx.post(f"{url}/encode", json={"images": others}, timeout=60).raise_for_status()
        with page.expect_response(lambda answer: answer.status == 404):
            press_on_slider(page, "End")
        expect(page.locator(".pictures-panel .status")).to_contain_text("Done in")
        page.close()  # before its service


def test_key_is_asked_for_and_kept(open_studio: OpenStudio, studio_settings: Settings) -> None:
    settings = replace(studio_settings, bundle=(SHIPPED_BUNDLE,), api_keys=("a-key-for-tests",))
    with serving(settings, fake_runner) as url:
        page = open_studio(url=url, expected=("status of 401",))
        dialog = page.get_by_role("dialog", name="API key")
        expect(dialog).to_be_visible()
        page.get_by_label("Key", exact=True).fill("a-key-for-tests")
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator(".bar").first).to_be_visible()
        page.reload()
        expect(page.locator(".bar").first).to_be_visible()
        expect(dialog).to_be_hidden()
        page.close()  # before its service
