"""A browser on the Prototype Studio of a live service; whatever it logs as an error fails the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from model.bundle import Bundle
from service.engine.fake_runner import FakeRunner
from service.engine.runner import Runner, StepInputs, StepOutputs
from service.settings import SHIPPED_BUNDLE, SHIPPED_BUNDLES, Settings
from tests.service.conftest import fake_runner, serving

CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_FLAGS = (
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 20_000
DESKTOP = (1440, 900)


@dataclass
class Watched:
    """What a page did that it should not: errors it logged, and requests to anybody but its service."""

    url: str
    faults: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()

    def console(self, message: ConsoleMessage) -> None:
        is_expected = any(text in message.text for text in self.expected)
        if message.type in ("error", "warning") and not is_expected:
            self.faults.append(message.text)

    def request(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.faults.append(f"asked {request.url}")


OpenStudio = Callable[..., Page]


@pytest.fixture(scope="module")  # while Playwright runs, nothing else in the thread can run an event loop
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing: the project's set-up installs it (see CONTRIBUTING.md)")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def studio_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return replace(
        Settings(), state_dir=tmp_path_factory.mktemp("state"), bundle=SHIPPED_BUNDLES, tune_batch="off"
    )


@pytest.fixture(scope="session")
def studio_url(studio_settings: Settings) -> Iterator[str]:
    """Both shipped models, as `make serve` serves them."""
    with serving(studio_settings) as url:
        yield url


@pytest.fixture(scope="session")
def quick_url(studio_settings: Settings) -> Iterator[str]:
    """Both shipped models with networks that only pretend: for what the page does, whatever they answer."""
    with serving(studio_settings, fake_runner) as url:
        yield url


@pytest.fixture
def open_studio(browser: Browser, studio_url: str) -> Iterator[OpenStudio]:
    """Opens the studio; `expected`: parts of what the console may say."""
    contexts, watchers = [], []

    def open_page(
        hash_: str = "",
        *,
        url: str = studio_url,
        size: tuple[int, int] = DESKTOP,
        theme: str = "light",
        expected: tuple[str, ...] = (),
    ) -> Page:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if theme == "dark" else "light",
            accept_downloads=True,
            reduced_motion="reduce",  # colours that are on their way would fail rules of contrast
        )
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        watched = Watched(url, expected=expected)
        watchers.append(watched)
        page.on("console", watched.console)
        page.on("pageerror", lambda error: watched.faults.append(str(error)))
        page.on("request", watched.request)
        page.goto(f"{url}/{hash_}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    faults = [fault for watched in watchers for fault in watched.faults]
    assert faults == []


class GatedRunner(FakeRunner):
    """Waits at every step while `gate` is closed."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.config, max_batch=1, has_prior=bundle.prior is not None)
        self.gate = threading.Event()
        self.gate.set()
        self.is_held = threading.Event()

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        if not self.gate.is_set():
            self.is_held.set()
        assert self.gate.wait(30)
        return super().denoise_step(inputs)


@pytest.fixture
def gated(studio_settings: Settings) -> Iterator[tuple[str, GatedRunner]]:
    """A service of one row at a time, and two that may wait, whose steps can be held."""
    runner = GatedRunner(Bundle.load(SHIPPED_BUNDLE))

    def make(bundle: Bundle, settings: Settings) -> Runner:
        return runner

    settings = replace(studio_settings, bundle=(SHIPPED_BUNDLE,), max_queue=2)
    with serving(settings, make) as url:
        yield url, runner
        runner.gate.set()
