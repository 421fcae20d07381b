"""Measure anew what a bundle says of its prototypes, leaving its weights and graphs as they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from model.bundle import DENOISER, ENCODER, PRIOR, WEIGHTS, Bundle, write_manifest, write_pictures
from model.patronus import Patronus
from model.statistics import ActivationStatistics
from training.data import Dataset
from training.export import git_revision, replacing, require_images
from training.measurements import EFFECT_SAMPLES, EMERGENCE_SAMPLES, graph_scores, measure

ROUNDING = 1e-5
"""Of a quantile (0 … 9.21) that a manifest keeps in 6 significant digits, and that another device finds."""
LARGEST_SHIFT = 0.01
"""Of a quantile, in standard deviations: more than another device's rounding, less than other data's."""


class RemeasureError(Exception):
    """A bundle's weights are damaged, or its prior does not belong to the data set."""


def remeasure(
    directory: Path,
    out: Path,
    train: Dataset,
    test: Dataset,
    *,
    dataset_name: str,
    emergence_samples: int = EMERGENCE_SAMPLES,
    effect_samples: int = EFFECT_SAMPLES,
    device: str = "cpu",
) -> Bundle:
    """Write the bundle in `directory` to `out`, which may be the same, with what `measure` finds.

    Weights, graphs, names, metrics and provenance are kept, and what was measured on is added to the
    latter. Raises BundleError, RemeasureError where the weights do not fit the configuration or a prior was
    trained for other statistics, ExportError where the images do not fit or `out` is something else;
    nothing is left behind then.
    """
    bundle = Bundle.load(directory)
    require_images(bundle.config, (train, test))
    patronus = load_bundle_weights(bundle)
    with replacing(out) as scratch:
        files = [ENCODER, DENOISER, WEIGHTS] + ([] if bundle.prior is None else [PRIOR])
        for file in files:
            shutil.copyfile(bundle.path(file), scratch / file)
        measured = measure(
            patronus,
            train,
            test,
            draw_scores=None if bundle.prior is None else graph_scores(scratch / PRIOR, bundle.prior),
            emergence_samples=emergence_samples,
            effect_samples=effect_samples,
            device=device,
        )
        if bundle.prior is not None:
            _require_same(bundle, measured.statistics)
        write_pictures(scratch, measured.pictures)
        kept = {name: value for name, value in bundle.metrics.items() if name not in ("emergence", "effects")}
        write_manifest(
            scratch,
            name=bundle.name,
            config=bundle.config,
            statistics=measured.statistics,
            attributes=measured.attributes,
            effects=measured.effects,
            prototypes=measured.prototypes([prototype.name for prototype in bundle.prototypes]),
            metrics=kept | measured.figures(),
            provenance={
                **bundle.provenance,
                "remeasured": {
                    "git_revision": git_revision(),
                    "dataset": dataset_name,
                    "num_training_images": len(train),
                    "num_test_images": len(test),
                    "torch": torch.__version__,
                },
            },
            prior=bundle.prior,
        )
    return Bundle.load(out)


def load_bundle_weights(bundle: Bundle) -> Patronus:
    """The model of a bundle, for evaluation. Raises RemeasureError."""
    patronus = Patronus(bundle.config)
    try:
        patronus.load_state_dict(load_file(bundle.path(WEIGHTS)))
    except Exception as error:  # safetensors and torch have one of their own each
        raise RemeasureError(f"{bundle.path(WEIGHTS)} does not hold the model's weights: {error}") from error
    return patronus.eval().requires_grad_(False)


def _require_same(bundle: Bundle, found: ActivationStatistics) -> None:
    """The prior speaks of the statistics of its training data: under others it would draw another s."""
    kept = bundle.statistics
    assert kept is not None  # a prior comes with statistics
    moved = (np.abs(found.quantiles - kept.quantiles) - ROUNDING).clip(0.0)
    shift = moved / kept.spread[:, None]  # (m, 99)
    j = int(shift.max(axis=1).argmax())
    if shift[j].max() > LARGEST_SHIFT:
        raise RemeasureError(
            f"prototype {j} has other statistics on this data set (a quantile moves by {shift[j].max():.2f} "
            "standard deviations), and the bundle's prior was trained for those it has: name the data set "
            "that the model was trained on"
        )
