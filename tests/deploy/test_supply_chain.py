"""What `make sbom` and `make licences` add to the tools that they use."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from model.bundle import Bundle
from service.settings import SHIPPED_BUNDLE

ROOT = Path(__file__).parents[2]


def test_bill_of_materials_names_the_bundle_and_its_files(tmp_path: Path) -> None:
    bom = tmp_path / "bom.json"
    bom.write_text(json.dumps({"bomFormat": "CycloneDX", "components": [{"name": "numpy"}]}))
    script = str(ROOT / "deploy" / "sbom_bundles.py")
    subprocess.run([sys.executable, script, str(bom), str(SHIPPED_BUNDLE)], check=True, timeout=60)
    package, model = json.loads(bom.read_text())["components"]
    bundle = Bundle.load(SHIPPED_BUNDLE)
    assert package == {"name": "numpy"}
    assert (model["type"], model["name"], model["version"]) == (
        "machine-learning-model",
        bundle.name,
        bundle.digest,
    )
    told = {entry["name"].rsplit(":", 1)[1]: json.loads(entry["value"]) for entry in model["properties"]}
    assert told == dict(bundle.provenance)
    for file in model["components"]:
        digest = hashlib.sha256((SHIPPED_BUNDLE / file["name"]).read_bytes()).hexdigest()
        assert file["hashes"] == [{"alg": "SHA-256", "content": digest}]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("License-Expression: MIT AND Zlib\nLicense: something else", "MIT AND Zlib"),
        ("Classifier: License :: OSI Approved :: MIT License\nLicense: the text", "MIT License"),
        ("License: BSD-3-Clause", "BSD-3-Clause"),
        ("License: Copyright 2026\n        Permission is granted", "Copyright 2026"),
        ("Summary: says nothing", "?"),
    ],
)
def test_licence_is_what_a_package_says_best(tmp_path: Path, metadata: str, expected: str) -> None:
    package = tmp_path / "thing-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(f"Metadata-Version: 2.4\nName: thing\nVersion: 1.0\n{metadata}\n")
    script = str(ROOT / "deploy" / "licences.py")
    listed = subprocess.run(
        [sys.executable, "-S", "-I", "-c", LIST_FROM, script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert f"| thing | 1.0 | {expected} |" in listed.stdout, listed.stderr
    assert listed.returncode == (1 if expected == "?" else 0)


LIST_FROM = """
import runpy, sys
script, directory = sys.argv[1:]
sys.path.insert(0, directory)
runpy.run_path(script, run_name="__main__")
"""
"""Run a script without site packages, but for those of one directory."""
