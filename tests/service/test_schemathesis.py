"""The service does what its OpenAPI document says, in every way that schemathesis can think of."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.settings import Settings
from tests.service.conftest import fake_runner, serving

CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture
def url(settings: Settings, tmp_path: Path) -> Iterator[str]:
    """A service of its own, because prototypes are renamed."""
    with serving(replace(settings, state_dir=tmp_path / "state"), fake_runner) as url:
        yield url


def test_schemathesis_finds_nothing(url: str, tmp_path: Path) -> None:
    """All checks in all phases: examples, coverage of boundaries, fuzzing, and stateful by links."""
    program = Path(sys.executable).with_name("st")
    command = [str(program), "--config-file", str(CONFIG), "run", f"{url}/openapi.json"]
    command += ["--checks", "all", "--max-examples", "20", "--seed", "1", "--no-color"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "26 selected" in done.stdout or "Selected: 26" in done.stdout, done.stdout[-6000:]
    assert "Stateful" in done.stdout
