"""`python -m training` from data files to a bundle that loads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file

from model.bundle import WEIGHTS, Bundle
from model.config import small_config
from training.__main__ import main
from training.trainer import load_averaged_model

WriteIdx = Callable[[Path, npt.NDArray[np.uint8]], None]


@pytest.fixture
def data(tmp_path: Path, write_idx: WriteIdx) -> Path:
    """A very small Fashion-MNIST: 60 training and 10 test images of 28x28."""
    directory = tmp_path / "data"
    directory.mkdir()
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 60), ("t10k", 10)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 8, 5:20] = 250
        write_idx(directory / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(directory / f"{prefix}-labels-idx1-ubyte.gz", labels)
    return directory


def command(*words: object) -> int:
    return main([str(word) for word in words])


def test_train_evaluate_and_export_make_a_bundle(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "bundle"
    size = ("--num-images", 16, "--batch-size", 8, "--device", "cpu")
    assert command("train", "--data", data, "--out", run, "--seed", 3, *size) == 0
    assert command("evaluate", "--data", data, "--run", run, "--num-samples", 2, "--device", "cpu") == 0
    assert "fd_classifier" in capsys.readouterr().out
    assert command("export", "--data", data, "--run", run, "--out", out, "--name", "tiny shoes") == 0

    bundle = Bundle.load(out)
    assert bundle.name == "tiny shoes"
    assert bundle.config == small_config()
    assert bundle.metrics["num_test_images"] == 10
    assert bundle.provenance["training"]["seed"] == 3
    assert bundle.provenance["num_training_images"] == 60
    patronus, config = load_averaged_model(run)
    assert dataclasses.asdict(config)["num_images"] == 16
    weights = load_file(out / WEIGHTS)
    for name, value in patronus.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_a_run_is_resumed_only_when_asked(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train", "--data", data, "--out", tmp_path / "run", "--num-images", 8, "--batch-size", 8)
    assert command(*words) == 0
    assert command(*words) == 1
    assert "already holds a run: add --resume" in capsys.readouterr().err
    assert command(*words, "--resume") == 0
    assert command(*words, "--resume", "--learning-rate", 0.5) == 1
    assert "was written by another configuration" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "--data", "{missing}", "--out", "{run}"), "train-images-idx3-ubyte.gz is missing"),
        (("train", "--data", "{data}", "--out", "{run}", "--batch-size", "0"), "batch_size must be >= 1"),
        (("train", "--data", "{data}", "--out", "{run}", "--resume"), "checkpoint.pt is missing"),
        (("evaluate", "--data", "{data}", "--run", "{run}"), "checkpoint.pt is missing"),
        (
            ("export", "--data", "{data}", "--run", "{run}", "--out", "{out}", "--name", "x"),
            "checkpoint.pt is missing",
        ),
    ],
)
def test_faults_are_one_line_that_says_what_is_wrong(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    paths = {name: str(tmp_path / name) for name in ("missing", "run", "out")} | {"data": str(data)}
    assert main([word.format(**paths) for word in words]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "usage: python -m training" in capsys.readouterr().err
