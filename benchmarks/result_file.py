"""Where a table is kept, by the bundle that it is about."""

from __future__ import annotations

from pathlib import Path

from model.bundle import Bundle
from service.settings import SHIPPED_BUNDLE

RESULTS = Path(__file__).parent / "results"


def result_file(stem: str, bundle: Bundle) -> Path:
    """benchmarks/results/<stem>.md, with the bundle's name unless it is the one served by default."""
    RESULTS.mkdir(exist_ok=True)
    return RESULTS / (f"{stem}.md" if _is_default(bundle) else f"{stem}-{bundle.name}.md")


def bundle_argument(bundle: Bundle) -> str:
    """How a command names the bundle: not at all where it is the default one."""
    return "" if _is_default(bundle) else f" --bundle bundles/{bundle.name}"


def _is_default(bundle: Bundle) -> bool:
    return bundle.name == SHIPPED_BUNDLE.name
