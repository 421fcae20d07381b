"""The page of the models that are shipped, from their manifests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from docs.reference.markdown import code, prose, table
from model.bundle import Bundle
from service.settings import SHIPPED_BUNDLES

MEBIBYTE = 2**20


def shipped_models_page() -> str:
    parts = [
        "# Shipped models\n",
        "*Written from the manifests of the bundles*, whose numbers `GET /version` has too.\n",
    ]
    for directory in SHIPPED_BUNDLES:
        bundle = Bundle.load(directory)
        size = sum(file.stat().st_size for file in directory.iterdir())
        channels, height, width = bundle.config.image.shape
        facts = [
            ("digest", code(bundle.digest[:12])),
            ("images", f"{width}x{height}, {'colour' if channels == 3 else 'grey'}"),
            ("prototypes", str(bundle.config.num_prototypes)),
            ("latent prior", "none" if bundle.prior is None else "yes"),
            ("size", f"{size / MEBIBYTE:.1f} MiB"),
        ]
        parts += [
            f"## {bundle.name}\n",
            table(("what", "value"), facts),
            "### Measured { #measured-" + bundle.name + " }\n",
            table(("figure", "value"), _leaves(bundle.metrics)),
            "### Provenance { #provenance-" + bundle.name + " }\n",
            table(("what", "value"), _leaves(bundle.provenance)),
        ]
    return "\n".join(parts)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, value) of everything; lists stay together."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            yield (
                code(prefix + name),
                prose(text if isinstance(value, str | float | int) else json.dumps(value)),
            )
