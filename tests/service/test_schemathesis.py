"""The service does what its OpenAPI document says, in every way that schemathesis can think of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFIG = Path(__file__).with_name("schemathesis.toml")


def test_schemathesis_finds_nothing(fake_url: str, tmp_path: Path) -> None:
    """All checks in all phases: examples, coverage of boundaries, fuzzing, and stateful by links."""
    program = Path(sys.executable).with_name("st")
    command = [str(program), "--config-file", str(CONFIG), "run", f"{fake_url}/openapi.json"]
    command += ["--checks", "all", "--max-examples", "40", "--seed", "1", "--no-color"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "22 selected" in done.stdout or "Selected: 22" in done.stdout, done.stdout[-6000:]
    assert "Stateful" in done.stdout
