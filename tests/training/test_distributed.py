"""Two processes over gloo take the steps that one process takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

WriteIdx = Callable[[Path, npt.NDArray[np.uint8]], None]

ROOT = Path(__file__).parents[2]
SMALL = (
    "model.encoder.num_prototypes=5",
    "model.encoder.channels=[8,8,8,8]",
    "model.denoiser.base_channels=8",
    "model.denoiser.dropout=0.0",  # drawn by each process for itself
)


@pytest.fixture
def data(tmp_path: Path, write_idx: WriteIdx) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    rng = np.random.default_rng(0)
    write_idx(directory / "train-images-idx3-ubyte.gz", rng.integers(0, 256, (50, 28, 28), dtype=np.uint8))
    write_idx(directory / "train-labels-idx1-ubyte.gz", (np.arange(50) % 10).astype(np.uint8))
    return directory


def train(
    data: Path, out: Path, *, processes: int, num_images: int, resume: bool = False, decouple: str = ""
) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    command = [sys.executable, *(torchrun if processes > 1 else ()), "-m", "training", "train"]
    command += ["--data", str(data), "--cache", str(data / "cache"), "--out", str(out), "--device", "cpu"]
    command += [
        "--batch-size",
        "8",
        "--num-images",
        str(num_images),
        "--log-every",
        "1",
        "--warmup-steps",
        "0",
        "--decay",
        "constant",
    ]
    for assignment in SMALL:
        command += ["--set", assignment]
    if resume:
        command += ["--resume"]
    if decouple:
        command += ["--decouple", decouple]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def curve(run: Path, name: str) -> list[float]:
    records: list[dict[str, Any]] = [
        json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    return [record[name] for record in records]


def test_two_processes_follow_the_loss_curve_of_one_with_the_doubled_batch(
    data: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    train(data, one, processes=1, num_images=8 * 8, decouple="0:1,0:2,3:4")
    train(data, two, processes=2, num_images=8 * 8, decouple="0:1,0:2,3:4")
    for name in (
        "denoising", "nearest_patch", "decorrelation", "raw_spread", "leakage", "shortfall", "grad_norm"
    ):  # fmt: skip
        expected = curve(one, name)
        assert len(expected) == 8
        np.testing.assert_allclose(curve(two, name), expected, rtol=2e-3, atol=1e-5, err_msg=name)
    assert len(set(curve(one, "denoising"))) == 8


def test_a_run_of_two_processes_is_resumed_by_one(data: Path, tmp_path: Path) -> None:
    straight, changed = tmp_path / "straight", tmp_path / "changed"
    train(data, straight, processes=1, num_images=6 * 8)
    train(data, changed, processes=2, num_images=3 * 8)
    saved = json.loads((changed / "config.json").read_text())
    checkpoint = torch.load(changed / "checkpoint.pt", weights_only=True)
    checkpoint["config"]["num_images"] = saved["num_images"] = 6 * 8  # the same run, meant to be longer
    torch.save(checkpoint, changed / "checkpoint.pt")
    (changed / "config.json").write_text(json.dumps(saved))
    train(data, changed, processes=1, num_images=6 * 8, resume=True)
    np.testing.assert_allclose(
        curve(changed, "denoising"), curve(straight, "denoising"), rtol=2e-3, atol=1e-5
    )
