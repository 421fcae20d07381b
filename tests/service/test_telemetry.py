"""Nothing that runs here reports to its makers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SILENT_ANYWAY = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS")
"""Variables under which ONNX Runtime reports nothing whatever we do."""
OPEN_A_RUNNER = """
from model.bundle import Bundle
from service.engine.onnx_runner import OnnxRunner
from service.settings import SHIPPED_BUNDLE
OnnxRunner(Bundle.load(SHIPPED_BUNDLE), device="cpu", max_batch=1)
"""


def test_onnx_runtime_keeps_no_identifier_of_this_machine(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in SILENT_ANYWAY}
    homes = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", OPEN_A_RUNNER], cwd=ROOT, env={**kept, **homes}, check=True, timeout=60
    )
    assert list(tmp_path.rglob("*")) == []
