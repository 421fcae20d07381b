"""The page of the bundle format, from `model.bundle` and a bundle that is shipped."""

from __future__ import annotations

import inspect
import json
from typing import Any

import model.bundle
from docs.reference.markdown import code, prose, table
from model.bundle import (
    DENOISER,
    ENCODER,
    FORMAT_VERSION,
    MANIFEST,
    PRIOR,
    READABLE_VERSIONS,
    Bundle,
    graph_signature,
)
from model.samplers import NUM_COEFFICIENTS
from service.settings import SHIPPED_BUNDLE

SHOWN = 3
"""Entries of a list, or characters of a digest, are shown so many and then elided."""


def bundle_page() -> str:
    bundle = Bundle.load(SHIPPED_BUNDLE)
    summary, files, rest = inspect.cleandoc(model.bundle.__doc__ or "").split("\n\n", 2)
    manifest = json.loads((SHIPPED_BUNDLE / MANIFEST).read_bytes())
    parts = [
        "# Bundle format\n",
        f"*Written from `model/bundle.py`.* {prose(summary)} Format {FORMAT_VERSION}; formats "
        f"{' and '.join(map(str, READABLE_VERSIONS))} are read.\n",
        "```text\n" + files + "\n```\n",
        prose(rest) + "\n",
        "Loading checks the format version, the hash of every file and that all parts describe the same "
        "number of prototypes; a runner checks each graph's inputs before it serves. Whatever is wrong is "
        f"named. The bundle's digest is the sha256 of `{MANIFEST}`, which names every other file's.\n",
        "## Graphs { #graphs }\n",
        f"Inputs of the graphs of the shipped `{bundle.name}`; `None` is the batch, which is free.\n",
    ]
    rows = [
        [code(file), code(name), code(str(shape))]
        for file in (ENCODER, DENOISER, PRIOR)
        for name, shape in graph_signature(file, bundle.config).items()
    ]
    parts += [
        table(("graph", "input", "shape"), rows),
        f"`coefficients` are the {NUM_COEFFICIENTS} numbers of one row's step, alpha, sigma, clip, a, b, c, "
        "d and keep ([samplers](model.md#model.samplers)):\n",
        "```text\n" + _step_equations() + "\n```\n",
        "## Manifest { #manifest }\n",
        f"That of `{bundle.name}`, with long lists elided:\n",
        "```json\n" + json.dumps(_elided(manifest), indent=1, ensure_ascii=False) + "\n```\n",
    ]
    return "\n".join(parts)


def _step_equations() -> str:
    """The indented paragraph of `model.samplers` that says what one step does."""
    import model.samplers

    paragraphs = inspect.cleandoc(model.samplers.__doc__ or "").split("\n\n")
    return inspect.cleandoc(next(paragraph for paragraph in paragraphs if paragraph.startswith("    ")))


def _elided(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _elided(part) for name, part in value.items()}
    if isinstance(value, list):
        shown = [_elided(part) for part in value[:SHOWN]]
        return [*shown, f"… {len(value)} in all"] if len(value) > SHOWN else shown
    if isinstance(value, float):
        return round(value, 4)
    return value
