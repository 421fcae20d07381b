"""Where a table is kept, by what it is about."""

from __future__ import annotations

from pathlib import Path

from model.bundle import Bundle
from service.settings import SHIPPED_BUNDLE

RESULTS = Path(__file__).parent / "results"


def result_file(stem: str, bundle: Bundle | None = None, *, usual: str = SHIPPED_BUNDLE.name) -> Path:
    """benchmarks/results/<stem>.md, with the bundle's name unless it is the `usual` one.

    The directory is made. Without a bundle the table is about something else.
    """
    name = usual if bundle is None else bundle.name
    path = RESULTS / (f"{stem}.md" if name == usual else f"{stem}-{name}.md")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def bundle_argument(bundle: Bundle) -> str:
    """How a command names the bundle: not at all where it is the default one."""
    return "" if bundle.name == SHIPPED_BUNDLE.name else f" --bundle bundles/{bundle.name}"
