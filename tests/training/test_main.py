"""`python -m training` from data files to a bundle that loads."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file

from model.bundle import WEIGHTS, Bundle
from model.config import config_from_dict, small_config
from training.__main__ import main
from training.config import TrainConfig, with_overrides
from training.presets import PRESETS
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
    where = ("--data", data, "--cache", tmp_path / "cache")
    size = ("--num-images", 16, "--batch-size", 8, "--device", "cpu")
    assert command("train", *where, "--out", run, "--seed", 3, *size) == 0
    assert (
        command("train-prior", *where, "--run", run, "--num-steps", 5, "--width", 16, "--device", "cpu") == 0
    )
    few = ("--num-samples", 2, "--steps", 3, 5, "--device", "cpu")
    assert command("evaluate", *where, "--run", run, *few) == 0
    printed = capsys.readouterr().out
    assert "fd_classifier_dpmpp_2m_5_steps_learned_s" in printed
    assert "prior_s" in printed
    two = ("--device", "cpu", "--emergence-samples", 2, "--effect-samples", 2)
    assert command("export", *where, "--run", run, "--out", out, "--name", "tiny shoes", *two) == 0
    assert (run / "emergence.png").exists()

    bundle = Bundle.load(out)
    assert bundle.name == "tiny shoes"
    assert bundle.config == small_config()
    assert bundle.prior is not None
    assert bundle.metrics["num_test_images"] == 10
    assert bundle.provenance["training"]["seed"] == 3
    assert bundle.provenance["num_training_images"] == 60
    patronus, config = load_averaged_model(run)
    assert dataclasses.asdict(config)["num_images"] == 16
    weights = load_file(out / WEIGHTS)
    for name, value in patronus.state_dict().items():
        assert torch.equal(value, weights[name]), name

    plot = tmp_path / "plot.png"
    assert command("remeasure", out, *where, *two, "--emergence-plot", plot) == 0
    found = Bundle.load(out)
    assert found.provenance["remeasured"]["dataset"] == "fashion-mnist"
    assert found.prototypes == bundle.prototypes
    assert plot.exists()


def test_a_run_is_resumed_only_when_asked(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ("train", "--data", data, "--cache", tmp_path / "cache", "--out", tmp_path / "run")
    words = (*short, "--num-images", 8, "--batch-size", 8)
    assert command(*words) == 0
    assert command(*words) == 1
    assert "already holds a run: add --resume" in capsys.readouterr().err
    assert command(*words, "--resume") == 0
    assert command(*short, "--resume") == 0  # with the run's own configuration
    assert command(*words, "--resume", "--learning-rate", 0.5) == 1
    assert "was written by another configuration" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "--data", "{missing}", "--out", "{run}"), "train-images-idx3-ubyte.gz is missing"),
        (("train", "--data", "{data}", "--out", "{run}", "--batch-size", "0"), "batch_size must be >= 2"),
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


def test_a_dry_run_prints_the_whole_configuration_and_does_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("train", "--preset", "paper-celeba", "--dry-run", "--out", tmp_path / "run", "--seed", 4)
    assert command(*words, "--set", "model.encoder.num_prototypes=7", "--learning-rate", 0.1) == 0
    printed = config_from_dict(TrainConfig, json.loads(capsys.readouterr().out))
    overrides = {"seed": 4, "model.encoder.num_prototypes": 7, "optimizer.learning_rate": 0.1}
    assert printed == with_overrides(PRESETS["paper-celeba"], overrides)
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_prints_its_table_and_keeps_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep"
    words = ("sweep", "--data", data, "--cache", tmp_path / "cache", "--out", out, "--device", "cpu")
    assert command(*words, "--num-images", 8, "--batch-size", 8, "--vary", "m=2,3") == 0
    assert "| 3 | " in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"m=2", "m=3", "sweep.md", "sweep.json", "sweep.png"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "--out", "x", "--set", "wings"), "--set takes name=value"),
        (("train", "--out", "x", "--set", "model.wings=2"), "there is no field 'model.wings'"),
        (("train", "--data", "x"), "--out is needed"),
        (("train", "--data", "x", "--out", "y", "--dataset", "imagenet"), "imagenet"),
        (("sweep", "--data", "x", "--out", "y", "--vary", "m"), "--vary takes name=value"),
        (("import-official", "nowhere", "--out", "y"), "nowhere"),
        (("import-official", "nowhere", "--out", "y", "--data", "x"), "--data needs --dataset"),
        (
            ("import-official", "nowhere", "--out", "y", "--emergence-plot", "x"),
            "--emergence-plot needs --dataset",
        ),
        (("remeasure", "nowhere", "--data", "x"), "manifest.json cannot be read"),
        (("remeasure", "hf://lab/faces", "--data", "x"), "--out is needed: hf://lab/faces is no directory"),
        (("remeasure", "nowhere", "--emergence-samples", "-1"), "--emergence-samples must be >= 0"),
        (("remeasure", "nowhere", "--effect-samples", "1"), "--effect-samples must be 0 or >= 2, not 1"),
        (
            ("remeasure", "nowhere", "--emergence-samples", "0", "--emergence-plot", "x"),
            "--emergence-plot needs --emergence-samples",
        ),
    ],
)
def test_wrong_options_are_one_line_too(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(list(words)) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "usage: python -m training" in capsys.readouterr().err
