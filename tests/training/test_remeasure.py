"""A bundle measured anew keeps its model and says what it always said of the same data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from model.bundle import DENOISER, ENCODER, MANIFEST, PICTURES, PRIOR, WEIGHTS, Bundle, write_manifest
from model.statistics import ActivationStatistics
from training.data import Dataset
from training.export import ExportError
from training.remeasure import RemeasureError, _require_same, remeasure


def again(
    directory: Path,
    dataset: Dataset,
    out: Path | None = None,
    *,
    emergence_samples: int = 8,
    effect_samples: int = 32,
) -> Bundle:
    return remeasure(
        directory,
        out or directory,
        dataset,
        dataset,
        dataset_name="tiny images",
        emergence_samples=emergence_samples,
        effect_samples=effect_samples,
    )


def manifest(directory: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((directory / MANIFEST).read_text())
    return values


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    return lambda bundle: Path(shutil.copytree(bundle, tmp_path / "copy"))


def test_the_same_data_give_the_same_measurements(
    tiny_prior_bundle: Path, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    bundle = again(tiny_prior_bundle, tiny_dataset, tmp_path / "again")
    before, after = manifest(tiny_prior_bundle), manifest(bundle.directory)
    added = after["provenance"].pop("remeasured")
    assert added["dataset"] == "tiny images"
    assert added["num_training_images"] == len(tiny_dataset)
    assert after == before
    for file in (ENCODER, DENOISER, WEIGHTS, PRIOR, PICTURES):
        assert (bundle.directory / file).read_bytes() == (tiny_prior_bundle / file).read_bytes()


def test_a_bundle_is_replaced_by_default_and_keeps_the_names_of_its_prototypes(
    copy: Callable[[Path], Path], tiny_bundle: Path, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    directory = copy(tiny_bundle)
    bundle = Bundle.load(directory)
    named = tuple(replace(p, name=f"part {j}") for j, p in enumerate(bundle.prototypes))
    write_manifest(
        directory,
        name=bundle.name,
        config=bundle.config,
        statistics=bundle.statistics,
        prototypes=named,
        metrics=bundle.metrics,
        provenance=bundle.provenance,
    )
    found = again(directory, tiny_dataset, emergence_samples=0, effect_samples=0)
    assert [prototype.name for prototype in found.prototypes] == [f"part {j}" for j in range(4)]
    assert {prototype.emergence_share for prototype in found.prototypes} == {None}
    assert "emergence" not in found.metrics
    assert found.effects is None
    assert "effects" not in found.metrics
    assert found.metrics["probe"] == bundle.metrics["probe"]
    assert found.attributes is not None
    assert found.digest == Bundle.load(directory).digest
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_bundle_that_never_saw_data_gets_all_of_it(
    copy: Callable[[Path], Path], tiny_bundle: Path, tiny_dataset: Dataset
) -> None:
    directory = copy(tiny_bundle)
    bare = Bundle.load(directory)
    (directory / PICTURES).unlink()
    write_manifest(
        directory,
        name=bare.name,
        config=bare.config,
        statistics=None,
        prototypes=bare.prototypes,
        metrics={},
        provenance={},
    )
    assert Bundle.load(directory).statistics is None
    found = again(directory, tiny_dataset)
    assert found.statistics is not None
    assert found.pictures is not None
    assert found.attributes is not None
    assert found.effects is not None
    assert found.metrics["emergence"]["s_from"] == found.metrics["effects"]["s_from"] == "test images"


def test_a_prior_is_not_given_the_statistics_of_other_data(
    copy: Callable[[Path], Path], tiny_prior_bundle: Path, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    directory = copy(tiny_prior_bundle)
    other = Dataset(255 - tiny_dataset.pixels, tiny_dataset.labels, tiny_dataset.class_names)
    with pytest.raises(RemeasureError, match=r"prototype \d has other statistics on this data set"):
        again(directory, other)
    assert manifest(directory) == manifest(tiny_prior_bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_prototype_that_hardly_varies_is_no_other_data_for_being_rounded(tiny_prior_bundle: Path) -> None:
    bundle = Bundle.load(tiny_prior_bundle)
    rng = np.random.default_rng(0)
    s = 3.0 + 2e-5 * rng.standard_normal((500, bundle.config.num_prototypes))
    found = ActivationStatistics.measure(s.astype(np.float32))
    kept = ActivationStatistics.from_dict(found.to_dict())
    _require_same(replace(bundle, statistics=kept), found)
    with pytest.raises(RemeasureError, match="a quantile moves by"):
        _require_same(replace(bundle, statistics=kept), replace(found, quantiles=found.quantiles + 1e-4))


def test_images_of_another_shape_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    wide = Dataset(np.zeros((4, 1, 8, 16), np.uint8), np.zeros(4, np.int64))
    with pytest.raises(ExportError, match=r"images are \(1, 8, 16\), the network takes \(1, 8, 8\)"):
        again(tiny_bundle, wide, tmp_path / "out")


def test_weights_of_another_network_are_refused(
    copy: Callable[[Path], Path], tiny_bundle: Path, tiny_dataset: Dataset
) -> None:
    directory = copy(tiny_bundle)
    bundle = Bundle.load(directory)
    weights = load_file(directory / WEIGHTS)
    save_file(weights | {"encoder.prototypes": torch.zeros(5, 8)}, directory / WEIGHTS)
    write_manifest(
        directory,
        name=bundle.name,
        config=bundle.config,
        statistics=bundle.statistics,
        prototypes=bundle.prototypes,
        metrics={},
        provenance={},
    )
    with pytest.raises(RemeasureError, match=rf"{WEIGHTS} does not hold the model's weights"):
        again(directory, tiny_dataset)
