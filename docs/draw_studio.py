"""Draws docs/studio-*.png: the Prototype Studio over the shipped models, one picture for each journey.

    .venv/bin/python docs/draw_studio.py

Needs what the tests need: Playwright and Debian's Chromium.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from service.settings import Settings  # noqa: E402
from tests.service.conftest import serving  # noqa: E402
from tests.studio.conftest import CHROMIUM, CHROMIUM_FLAGS  # noqa: E402

NUM_COLOURS = 128
PATIENCE_MS = 300_000
HIDE_TIMES = "for (const line of document.querySelectorAll('.status')) line.style.visibility = 'hidden'"
"""How long it took is this machine's, and says nothing of the reader's."""
WITHOUT_FIRST_STEPS = "localStorage.setItem('patronus-first-steps', JSON.stringify({ isHidden: true }))"


def edit(page: Page) -> None:
    """Raise a prototype with the keyboard, and wait for where and when."""
    page.locator(".bar[data-prototype='30'] input").focus()
    page.keyboard.press("End")
    page.locator(".timeline-body").wait_for()


def compare(page: Page) -> None:
    page.locator(".pair .facts").nth(1).wait_for()
    page.locator(".pair .strip").nth(1).wait_for()


def diagnose(page: Page) -> None:
    page.get_by_label("Change", exact=True).select_option("39")
    page.get_by_role("button", name="Diagnose", exact=True).last.click()
    page.locator("table.couplings").first.wait_for()


def export(page: Page) -> None:
    page.locator(".timeline-body").wait_for()
    page.get_by_role("button", name="Export").click()
    page.get_by_role("button", name="Python").click()


def phone(page: Page) -> None:
    edit(page)
    page.locator(".bar[data-prototype='30']").scroll_into_view_if_needed()


Picture = tuple[str, str, str, tuple[int, int], Callable[[Page], None]]
PICTURES: tuple[Picture, ...] = (  # name, hash, theme, size, what to do
    ("edit", "#model=cartoon-faces&picture=reference-6", "light", (1280, 860), edit),
    ("prototypes", "#model=cartoon-faces&view=prototypes", "light", (1280, 720), lambda page: None),
    ("compare", "#model=cartoon-faces&view=compare", "dark", (1280, 680), compare),
    ("diagnose", "#model=cartoon-faces&view=diagnose", "light", (1280, 680), diagnose),
    ("export", "#picture=reference-0&edits=21=5.2", "dark", (1280, 720), export),
    ("phone", "#model=cartoon-faces&picture=reference-6", "light", (360, 740), phone),
)


def main() -> None:
    with serving(replace(Settings(), tune_batch="off")) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        for name, hash_, theme, (width, height), act in PICTURES:
            page = browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme="dark" if theme == "dark" else "light",
            )
            page.set_default_timeout(PATIENCE_MS)
            page.add_init_script(WITHOUT_FIRST_STEPS)
            page.goto(f"{url}/{hash_}")
            page.locator(".bar").first.wait_for(state="attached")
            act(page)
            page.wait_for_load_state("networkidle")
            page.evaluate(HIDE_TIMES)
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            path = ROOT / "docs" / f"studio-{name}.png"
            picture.quantize(NUM_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
