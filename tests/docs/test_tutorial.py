"""The tutorial is run from its first line to its last, against the shipped model."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings
from tests.docs.fenced_blocks import fenced_blocks, says_the_same
from tests.service.conftest import serving

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "site" / "tutorial.md"
URL = "http://127.0.0.1:8000"


def test_every_block_of_the_tutorial_works_and_shows_what_it_says(
    docs_settings: Settings, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    names: dict[str, Any] = {}
    shown = ""
    with serving(docs_settings) as url:
        for block in fenced_blocks(TUTORIAL):
            code = block.code.replace(URL, url)
            where = f"line {block.line}"
            if block.language == "python":
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    exec(compile(code, f"{TUTORIAL.name}, {where}", "exec"), names)
                shown = printed.getvalue()
            elif block.language == "bash":
                done = subprocess.run(["bash", "-eu", "-c", code], capture_output=True, text=True)
                assert done.returncode == 0, f"{where}: {done.stderr}"
                shown = done.stdout
            elif block.language == "text":
                assert says_the_same(shown, block.code), f"{where}: {shown}"
    made = {"where.png", "patch.png", "source.png", "enhanced.png", "edited.png", "reconstruction.png"}
    assert made <= {path.name for path in checkout.iterdir()}
    for name in made:
        assert (checkout / name).read_bytes().startswith(b"\x89PNG"), name
    assert "<html" in (checkout / "diagnosis.html").read_text()
    assert '"side"' in (checkout / "named.json").read_text()


def test_the_command_that_starts_the_service_is_there() -> None:
    commands = [block.code.strip() for block in fenced_blocks(TUTORIAL) if block.language == "sh"]
    assert commands == ["make serve"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "--dry-run", "serve"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "-m service" in done.stdout
