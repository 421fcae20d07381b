"""A real server on a real port, over the shipped bundle."""

from __future__ import annotations

import base64
import contextlib
import io
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

from model.bundle import Bundle
from model.transforms import to_picture
from service.app import RunnerFactory, TracingFactory, create_app, open_runner, open_tracing
from service.engine.fake_runner import FakeRunner
from service.engine.runner import Runner
from service.settings import SHIPPED_BUNDLE, Settings
from tests.service.redis_process import Server


@contextlib.contextmanager
def serving(
    settings: Settings,
    make_runner: RunnerFactory = open_runner,
    make_tracing: TracingFactory = open_tracing,
) -> Iterator[str]:
    """Run the application with uvicorn in a thread; gives its base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    app = create_app(settings, make_runner, make_tracing)
    config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive(), "the server died at start-up"
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)  # a poll of another thread, bounded above
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listener.close()


def fake_runner(bundle: Bundle, settings: Settings) -> Runner:
    """FakeRunner in the bundle's shapes."""
    return FakeRunner(bundle.config, max_batch=settings.max_batch, has_prior=bundle.prior is not None)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def picture(text: str) -> Image.Image:
    """The picture in a base64 field of a response."""
    return Image.open(io.BytesIO(base64.b64decode(text)))


def metric(url: str, line_start: str) -> float:
    """The sum of the samples in /metrics whose lines begin so."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(line_start))


def eventually(url: str, line_start: str, value: float) -> None:
    """Poll a metric, at most a few hundred times."""
    for _ in range(400):
        if metric(url, line_start) == value:
            return
    raise AssertionError(f"{line_start} is {metric(url, line_start)}, not {value}")


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return Bundle.load(SHIPPED_BUNDLE)


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    limits = replace(Settings(), state_dir=tmp_path_factory.mktemp("state"))
    limits = replace(limits, max_body_bytes=2_000_000, max_steps=200, max_images=32, max_queue=256)
    # One model starts sooner, and measuring the batch would differ from run to run.
    return replace(limits, bundle=(SHIPPED_BUNDLE,), tune_batch="off")


@pytest.fixture(scope="session")
def reference_pngs(bundle: Bundle) -> list[bytes]:
    """Test images that the bundle keeps, as files."""
    assert bundle.pictures is not None
    return [png(to_picture(pixels)) for pixels in bundle.pictures.reference_images]


@pytest.fixture(scope="session")
def real_url(settings: Settings) -> Iterator[str]:
    """The shipped model, as `make serve` serves it."""
    with serving(settings) as url:
        yield url


@pytest.fixture(scope="session")
def fake_url(settings: Settings) -> Iterator[str]:
    """The whole HTTP stack over a runner without weights."""
    with serving(settings, fake_runner) as url:
        yield url


@pytest.fixture(scope="session")
def real(real_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=real_url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def fake(fake_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fake_url, timeout=60) as client:
        yield client


@pytest.fixture
def noise_picture() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (40, 30), dtype=np.uint8))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Fashion-MNIST in its official files; skips where the machine has none."""
    directory = Path(__file__).parents[3] / "shared" / "data" / "fashion-mnist"
    if not directory.is_dir():
        pytest.skip(f"{directory} is missing: Fashion-MNIST is not part of the repository")
    return directory


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.fail("redis-server is not on the PATH: the project's set-up installs it (see CONTRIBUTING.md)")
    server = Server(program, tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.kill()
