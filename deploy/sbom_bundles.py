"""Add model bundles to a CycloneDX bill of materials: `python sbom_bundles.py BOM BUNDLE...`.

A bundle is a component of the type machine-learning-model: its version is the bundle's digest, its own
components are the files with their hashes, and its properties are what the manifest tells of its origin.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from model.bundle import Bundle

LICENCE = "MIT"
"""Of the shipped bundles, as of the data that they were trained on."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bom", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+")
    given = parser.parse_args()
    bom = json.loads(given.bom.read_text())
    for directory in given.bundles:
        bom["components"].append(component(directory))
    given.bom.write_text(json.dumps(bom, indent=2) + "\n")


def component(directory: Path) -> dict[str, Any]:
    """Loading the bundle checks that its files are those of its manifest. Raises BundleError."""
    bundle = Bundle.load(directory)
    files: dict[str, dict[str, str]] = json.loads((directory / "manifest.json").read_text())["files"]
    return {
        "type": "machine-learning-model",
        "bom-ref": f"bundle:{bundle.name}",
        "name": bundle.name,
        "version": bundle.digest,
        "licenses": [{"license": {"id": LICENCE}}],
        "properties": [
            {"name": f"patronus:provenance:{name}", "value": json.dumps(value)}
            for name, value in sorted(dict(bundle.provenance).items())
        ],
        "components": [
            {
                "type": "file",
                "bom-ref": f"bundle:{bundle.name}/{name}",
                "name": name,
                "hashes": [{"alg": "SHA-256", "content": file["sha256"]}],
            }
            for name, file in sorted(files.items())
        ],
    }


if __name__ == "__main__":
    main()
