from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from model.bundle import DENOISER, ENCODER, MANIFEST, Bundle
from model.config import ModelConfig, PriorConfig
from model.patronus import DenoiseStep, Patronus
from model.prior import Prior
from training.config import TrainConfig
from training.data import Dataset
from training.evaluate import EvaluationError
from training.export import (
    PARITY_TOLERANCE,
    ExportError,
    export_bundle,
    export_graphs,
    largest_difference,
    random_step_inputs,
)
from training.prior import PriorError, save_prior

KeepEvaluation = Callable[..., None]


def paper_like(config: ModelConfig) -> ModelConfig:
    """The paper's kind of network, as small: eps-prediction, added embeddings, summed distances."""
    return dataclasses.replace(
        config,
        encoder=dataclasses.replace(config.encoder, distance="sum"),
        denoiser=dataclasses.replace(
            config.denoiser,
            conditioning="add",
            standardize=False,
            attention_levels=(True, False),
            patch_size=2,
        ),
        prediction="eps",
    )


def test_graphs_of_the_papers_network_compute_what_torch_computes(
    tiny_config: ModelConfig, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    assert export_graphs(Patronus(paper_like(tiny_config)).eval(), tmp_path) <= PARITY_TOLERANCE
    assert sorted(path.name for path in tmp_path.iterdir()) == [DENOISER, ENCODER]


def test_a_graph_of_other_weights_is_refused_by_name(tiny_bundle: Path, tiny_patronus: Patronus) -> None:
    path, draw = tiny_bundle / DENOISER, partial(random_step_inputs, tiny_patronus.config)
    difference = largest_difference(DenoiseStep(tiny_patronus), path, draw)
    assert difference <= PARITY_TOLERANCE
    other = copy.deepcopy(tiny_patronus)
    with torch.no_grad():
        other.denoiser.first.weight.mul_(1.05)
    with pytest.raises(ExportError, match=rf"{DENOISER} differs from torch by"):
        largest_difference(DenoiseStep(other), path, draw)


def test_values_that_are_no_numbers_are_refused(tiny_bundle: Path, tiny_patronus: Patronus) -> None:
    other = copy.deepcopy(tiny_patronus)
    with torch.no_grad():
        other.denoiser.first.weight.fill_(torch.nan)
    with pytest.raises(ExportError, match="differs from torch by nan"):
        largest_difference(
            DenoiseStep(other), tiny_bundle / DENOISER, partial(random_step_inputs, other.config)
        )


def test_an_evaluation_of_other_weights_is_refused(
    tiny_patronus: Patronus, tiny_dataset: Dataset, keep_evaluation: KeepEvaluation, tmp_path: Path
) -> None:
    other = copy.deepcopy(tiny_patronus)
    with torch.no_grad():
        other.encoder.prototypes.add_(0.01)
    keep_evaluation(tmp_path, other)
    with pytest.raises(EvaluationError, match=r"the evaluation measured the weights .*, not these"):
        export(tiny_patronus, tiny_dataset, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_prior_is_exported_with_its_model(tiny_prior_bundle: Path) -> None:
    bundle = Bundle.load(tiny_prior_bundle)
    assert bundle.prior is not None
    assert bundle.prior.sampling_steps == 8
    assert bundle.metrics["export_largest_difference"] <= PARITY_TOLERANCE


def test_an_evaluation_of_another_prior_is_refused(
    tiny_patronus: Patronus, tiny_dataset: Dataset, keep_evaluation: KeepEvaluation, tmp_path: Path
) -> None:
    config = PriorConfig(num_prototypes=tiny_patronus.config.num_prototypes, width=8, num_layers=1)
    save_prior(Prior(config), tmp_path, tiny_patronus.encoder)
    for measured in (None, Prior(config)):
        keep_evaluation(tmp_path, tiny_patronus, measured)
        with pytest.raises(EvaluationError, match=r"the evaluation measured the prior .*, not these"):
            export(tiny_patronus, tiny_dataset, tmp_path, tmp_path / "out")


@pytest.mark.parametrize("manifest", ["{}", "[]", "no json", '{"format_version": 1, "files": {}}'])
def test_a_directory_with_some_manifest_is_no_bundle(
    tiny_patronus: Patronus,
    tiny_dataset: Dataset,
    keep_evaluation: KeepEvaluation,
    tmp_path: Path,
    manifest: str,
) -> None:
    keep_evaluation(tmp_path, tiny_patronus)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / MANIFEST).write_text(manifest)
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    with pytest.raises(ExportError, match="thesis exists and is no bundle"):
        export(tiny_patronus, tiny_dataset, tmp_path, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter").read_text() == "years of work"


def test_a_bundle_is_replaced_by_a_new_one(
    tiny_bundle: Path,
    tiny_patronus: Patronus,
    tiny_dataset: Dataset,
    keep_evaluation: KeepEvaluation,
    tmp_path: Path,
) -> None:
    out = tmp_path / "bundles" / "tiny"
    shutil.copytree(tiny_bundle, out)
    keep_evaluation(tmp_path, tiny_patronus)
    assert export(tiny_patronus, tiny_dataset, tmp_path, out).name == "again"
    assert Bundle.load(out).name == "again"
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]


def test_a_prior_of_another_encoder_is_refused(
    tiny_patronus: Patronus, tiny_dataset: Dataset, keep_evaluation: KeepEvaluation, tmp_path: Path
) -> None:
    other = copy.deepcopy(tiny_patronus)
    with torch.no_grad():
        other.encoder.prototypes.add_(0.01)
    prior = Prior(PriorConfig(num_prototypes=tiny_patronus.config.num_prototypes, width=8, num_layers=1))
    save_prior(prior, tmp_path, other.encoder)
    keep_evaluation(tmp_path, tiny_patronus)
    with pytest.raises(PriorError, match="train the prior again"):
        export(tiny_patronus, tiny_dataset, tmp_path, tmp_path / "out")


def export(patronus: Patronus, dataset: Dataset, run: Path, out: Path) -> Bundle:
    config = TrainConfig(model=patronus.config)
    return export_bundle(
        patronus, config, dataset, dataset, run=run, out=out, name="again", emergence_samples=0
    )


def test_a_run_that_was_not_evaluated_is_not_exported(
    tiny_patronus: Patronus, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(EvaluationError, match=r"evaluate. first"):
        export(tiny_patronus, tiny_dataset, tmp_path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_no_bundle_is_never_replaced(
    tiny_patronus: Patronus, tiny_dataset: Dataset, keep_evaluation: KeepEvaluation, tmp_path: Path
) -> None:
    keep_evaluation(tmp_path, tiny_patronus)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    with pytest.raises(ExportError, match="thesis exists and is no bundle"):
        export(tiny_patronus, tiny_dataset, tmp_path, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter").read_text() == "years of work"


def test_a_failed_export_leaves_the_old_bundle_and_nothing_else(
    tiny_bundle: Path,
    tiny_patronus: Patronus,
    tiny_dataset: Dataset,
    keep_evaluation: KeepEvaluation,
    tmp_path: Path,
) -> None:
    out = tmp_path / "bundles" / "tiny"
    shutil.copytree(tiny_bundle, out)
    broken = copy.deepcopy(tiny_patronus)
    with torch.no_grad():
        broken.encoder.prototypes.fill_(torch.nan)
    keep_evaluation(tmp_path, broken)
    with pytest.raises(ExportError, match="nan"):
        export(broken, tiny_dataset, tmp_path, out)
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]
    assert (out / MANIFEST).read_bytes() == (tiny_bundle / MANIFEST).read_bytes()
