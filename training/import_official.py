"""Turn a checkpoint of the paper's authors into a bundle that the service runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from model.bundle import Bundle
from model.config import ModelConfig
from model.official import read_official
from training.data import Dataset
from training.export import ExportError, git_revision, write_bundle


def import_official(
    directory: Path, out: Path, *, name: str, dataset: tuple[Dataset, Dataset] | None = None
) -> Bundle:
    """Write the bundle `out` from `directory`, which holds `ckpt.tar` and `config.pickle`.

    `dataset` is (train, test), to measure statistics and choose pictures on as `export_bundle` does;
    without it the bundle has neither. Raises OfficialCheckpointError, ExportError or BundleError; nothing
    is left behind then.
    """
    official = read_official(directory)
    config = official.patronus.config
    provenance: dict[str, Any] = {
        "imported_from": "official checkpoint",
        "checkpoint_sha256": official.sha256,
        "official_names": dict(official.names),
        "git_revision": git_revision(),
        "torch": torch.__version__,
    }
    if dataset is not None:
        _check_images(config, dataset)
        provenance["num_training_images"] = len(dataset[0])
    return write_bundle(
        official.patronus,
        out=out,
        name=name,
        measure_on=dataset,
        metrics={},
        provenance=provenance,
    )


def _check_images(config: ModelConfig, dataset: tuple[Dataset, Dataset]) -> None:
    for split in dataset:
        shape = split.pixels.shape[1:]
        if shape != config.image.shape:
            raise ExportError(
                f"the data set's images are {shape}, the checkpoint's network takes {config.image.shape}"
            )
