"""The notebook runs from its first cell to its last."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "notebook" / "patronus.ipynb"
MAX_BYTES = 300_000
"""It is kept with its pictures, so that they can be seen without running it."""


def test_no_cell_of_the_notebook_fails() -> None:
    before = NOTEBOOK.read_bytes()
    done = subprocess.run([sys.executable, "docs/run_notebook.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert NOTEBOOK.read_bytes() == before


def test_the_notebook_is_kept_small_and_without_errors() -> None:
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert all(output["output_type"] != "error" for output in outputs)
    assert "/home/" not in NOTEBOOK.read_text()
    assert str(ROOT) not in NOTEBOOK.read_text()
