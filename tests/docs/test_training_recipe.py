"""The recipe for one's own pictures is run from its first command to its last, with a small network."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import service.cli
import training.__main__
from model.bundle import Bundle
from tests.docs.fenced_blocks import fenced_blocks

HOW_TO = Path(__file__).parents[2] / "docs" / "site" / "how-to"
NUM_PICTURES = 64
QUICK: dict[str, str] = {
    "train": "--num-images 80 --batch-size 8 --log-every 1 --cache cache --device cpu "
    "--set model.denoiser.base_channels=8 --set model.encoder.num_prototypes=4",
    "train-prior": "--num-steps 5 --width 16 --cache cache --device cpu",
    "evaluate": "--steps 2 --cache cache --device cpu",
    "export": "--emergence-samples 2 --effect-samples 2 --cache cache --device cpu",
    "remeasure": "--emergence-samples 2 --effect-samples 2 --cache cache --device cpu",
    "encode": "",
    "visualize": "--num-samples 2 --steps 2",
}
"""What is put behind each command so that it takes a second."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With what the pages name: pictures of two classes, of another size than the network's, and a photo."""
    rng = np.random.default_rng(0)
    for i in range(NUM_PICTURES):
        path = tmp_path / "pictures" / ("boots", "shirts")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8))
        noise.resize((40, 48)).save(path)
    noise.resize((300, 200)).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(page: str) -> list[list[str]]:
    """Words of every command of the two programs that a page has, from the command's name on."""
    lines = [
        line
        for block in fenced_blocks(HOW_TO / page)
        if block.language == "bash"
        for line in block.code.splitlines()
    ]
    found = (re.fullmatch(r"\.venv/bin/(?:python -m training|patronus) (.*)", line) for line in lines)
    return [shlex.split(match[1], comments=True) for match in found if match]


def test_the_recipe_leads_from_a_folder_of_pictures_to_a_bundle_that_answers(folder: Path) -> None:
    ran = []
    for name, *arguments in (*commands("train.md"), *commands("export.md")):
        words = [name, *arguments, *shlex.split(QUICK[name])]
        main = service.cli.main if name in ("encode", "visualize") else training.__main__.main
        assert main(words) == 0, shlex.join(words)
        ran.append(name)
    assert ran == ["train", "train", "train-prior", "evaluate", "export", "encode", "visualize", "remeasure"]

    bundle = Bundle.load(folder / "bundles" / "mine")
    assert (bundle.name, bundle.prior is not None, bundle.attributes is not None) == ("mine", True, True)
    shown = {"prototype-3.png", "prototype-3.source.png", "prototype-3.patch.png"}
    assert {path.name for path in (folder / "visualized").iterdir()} == shown
    assert list((folder / "runs" / "mine" / "samples").iterdir())

    lines = [json.loads(line) for line in (folder / "runs/mine/metrics.jsonl").read_text().splitlines()]
    page = (HOW_TO / "train.md").read_text()
    watched = {name for name in re.findall(r"`(\w+)`", page) if "_" in name}
    assert len(watched) == 4
    assert watched <= lines[9].keys()  # the tenth, which has all of them
