"""What starts several processes: Accelerate's launcher, and the job for Slurm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import WriteIdx
from tests.training.test_distributed import ROOT, SMALL, curve

SCRIPT = ROOT / "deploy" / "slurm" / "train.sbatch"

SRUN = """#!/bin/bash
# Starts its command once for each machine, all of them here; fails if one does.
while [ "${1#--}" != "$1" ]; do shift; done
for ((i = 0; i < SLURM_JOB_NUM_NODES; i++)); do "$@" & started+=($!); done
for one in "${started[@]}"; do wait "$one" || failed=1; done
exit "${failed:-0}"
"""
SCONTROL = """#!/bin/bash
[ "$*" = "show hostnames $SLURM_JOB_NODELIST" ] && printf 'localhost\\nlocalhost\\n'
"""


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, write_idx: WriteIdx) -> list[str]:
    """Of `python -m training train` for a small model on 50 images, without --num-images and --out."""
    data = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    write_idx(data / "train-images-idx3-ubyte.gz", rng.integers(0, 256, (50, 28, 28), dtype=np.uint8))
    write_idx(data / "train-labels-idx1-ubyte.gz", (np.arange(50) % 10).astype(np.uint8))
    flags = {"data": data, "cache": data / "cache", "device": "cpu", "batch-size": 8, "log-every": 1}
    flags |= {"warmup-steps": 0, "decay": "constant"}
    given = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    return given + [text for assignment in SMALL for text in ("--set", assignment)]


@pytest.fixture(scope="module")
def straight(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps in one process."""
    out = tmp_path_factory.mktemp("runs") / "straight"
    run([sys.executable, "-m", "training", "train", *options, "--num-images", "48", "--out", str(out)])
    return out


def run(command: list[str], **environment: str) -> str:
    """What it says on stderr."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def test_accelerate_launch_of_two_processes_follows_the_loss_curve_of_one(
    options: list[str], straight: Path, tmp_path: Path
) -> None:
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    trained = ["-m", "training", "train", *options, "--num-images", "48", "--out", str(tmp_path)]
    said = run([sys.executable, *launch, *trained])
    assert said.count("shared by 2 processes") == 1
    np.testing.assert_allclose(
        curve(tmp_path, "denoising"), curve(straight, "denoising"), rtol=2e-3, atol=1e-5
    )


def test_requeued_slurm_job_of_two_machines_ends_as_an_undisturbed_run_does(
    options: list[str], straight: Path, tmp_path: Path
) -> None:
    stand_ins, out = tmp_path / "bin", tmp_path / "run"
    stand_ins.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (stand_ins / name).write_text(text)
        (stand_ins / name).chmod(0o755)
    job = {"PATH": f"{stand_ins}:{os.environ['PATH']}", "PYTHON": sys.executable, "SLURM_JOB_ID": "4711"}
    job |= {"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "a[1-2]", "SLURM_CPUS_PER_TASK": "1"}

    said = run(["bash", str(SCRIPT), str(out), *options, "--num-images", "24"], **job)
    assert said.count("shared by 2 processes") == 1
    checkpoint = torch.load(out / "checkpoint.pt", weights_only=True)
    assert checkpoint["step"] == 3
    assert list(out.glob("*.partial")) == []
    config = json.loads((out / "config.json").read_text())
    checkpoint["config"]["num_images"] = config["num_images"] = 48  # the same run, meant to be longer
    torch.save(checkpoint, out / "checkpoint.pt")
    (out / "config.json").write_text(json.dumps(config))

    run(["bash", str(SCRIPT), str(out), *options, "--num-images", "48"], **job)
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 6
    np.testing.assert_allclose(curve(out, "denoising"), curve(straight, "denoising"), rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("arguments", [[], ["--preset", "small"]])
def test_slurm_job_without_a_run_directory_says_how_it_is_used(arguments: list[str]) -> None:
    done = subprocess.run(["bash", str(SCRIPT), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: sbatch")
