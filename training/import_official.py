"""Turn a checkpoint of the paper's authors into a bundle that the service runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from model.bundle import Bundle
from model.config import PriorConfig
from model.official import read_official
from training.data import Dataset
from training.exemplars import encode_all
from training.export import git_revision, require_images, write_bundle
from training.measurements import EFFECT_SAMPLES, EMERGENCE_SAMPLES
from training.prior import train_prior


def import_official(
    directory: Path,
    out: Path,
    *,
    name: str,
    dataset: tuple[Dataset, Dataset] | None = None,
    prior_steps: int = 0,
    emergence_samples: int = EMERGENCE_SAMPLES,
    effect_samples: int = EFFECT_SAMPLES,
    device: str = "cpu",
) -> Bundle:
    """Write the bundle `out` from `directory`, which holds `ckpt.tar` and `config.pickle`.

    `dataset` is (train, test), to measure statistics, attributes, emergence and effects and to choose
    pictures on, as `export_bundle` does; without it the bundle has none of these. With it and `prior_steps`,
    a latent prior is trained for so many steps. Raises OfficialCheckpointError, ExportError, PriorError or
    BundleError; nothing is left behind then.
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
    prior = None
    if dataset is not None:
        require_images(config, dataset)
        provenance["num_training_images"] = len(dataset[0])
        if prior_steps:
            activations, _ = encode_all(official.patronus, dataset[0].pixels)
            prior = train_prior(
                activations, PriorConfig(num_prototypes=config.num_prototypes), num_steps=prior_steps
            )
            provenance["prior_steps"] = prior_steps
    return write_bundle(
        official.patronus,
        out=out,
        name=name,
        measure_on=dataset,
        metrics={},
        provenance=provenance,
        prior=prior,
        emergence_samples=emergence_samples,
        effect_samples=effect_samples,
        device=device,
    )
