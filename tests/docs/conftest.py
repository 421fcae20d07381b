"""A service to run pages against, and a folder that looks like a checkout."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from service.settings import SHIPPED_BUNDLE, Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def docs_settings(tmp_path: Path) -> Settings:
    """The shipped default model alone, which starts sooner."""
    return replace(Settings(), bundle=(SHIPPED_BUNDLE,), state_dir=tmp_path / "state", tune_batch="off")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Holds what commands of pages name, so that what they write lies there too."""
    top = tmp_path / "checkout"
    (top / "docs").mkdir(parents=True)
    (top / "docs" / "example.png").write_bytes((ROOT / "docs" / "example.png").read_bytes())
    (top / ".venv" / "bin").mkdir(parents=True)
    (top / ".venv" / "bin" / "python").symlink_to(sys.executable)
    return top
