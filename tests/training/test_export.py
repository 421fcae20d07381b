from __future__ import annotations

import copy
import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from model.bundle import DENOISER, ENCODER, MANIFEST, Bundle
from model.config import ModelConfig
from model.patronus import DenoiseStep, Patronus
from training.config import TrainConfig
from training.data import Dataset
from training.evaluate import EvaluationError, write_evaluation
from training.export import (
    PARITY_TOLERANCE,
    ExportError,
    export_bundle,
    export_graphs,
    largest_difference,
    random_step_inputs,
)


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
    config, path = tiny_patronus.config, tiny_bundle / DENOISER
    difference = largest_difference(DenoiseStep(tiny_patronus), path, config, random_step_inputs)
    assert difference <= PARITY_TOLERANCE
    other = copy.deepcopy(tiny_patronus)
    with torch.no_grad():
        other.denoiser.first.weight.mul_(1.05)
    with pytest.raises(ExportError, match=rf"{DENOISER} differs from torch by"):
        largest_difference(DenoiseStep(other), path, config, random_step_inputs)


def test_values_that_are_no_numbers_are_refused(tiny_bundle: Path, tiny_patronus: Patronus) -> None:
    other = copy.deepcopy(tiny_patronus)
    with torch.no_grad():
        other.denoiser.first.weight.fill_(torch.nan)
    with pytest.raises(ExportError, match="differs from torch by nan"):
        largest_difference(DenoiseStep(other), tiny_bundle / DENOISER, other.config, random_step_inputs)


def export(patronus: Patronus, dataset: Dataset, run: Path, out: Path) -> Bundle:
    config = TrainConfig(model=patronus.config)
    return export_bundle(patronus, config, dataset, dataset, run=run, out=out, name="again")


def test_a_run_that_was_not_evaluated_is_not_exported(
    tiny_patronus: Patronus, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(EvaluationError, match=r"evaluate. first"):
        export(tiny_patronus, tiny_dataset, tmp_path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_no_bundle_is_never_replaced(
    tiny_patronus: Patronus, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    write_evaluation(tmp_path, {})
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    with pytest.raises(ExportError, match="thesis exists and is no bundle"):
        export(tiny_patronus, tiny_dataset, tmp_path, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter").read_text() == "years of work"


def test_a_failed_export_leaves_the_old_bundle_and_nothing_else(
    tiny_bundle: Path, tiny_patronus: Patronus, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "bundles" / "tiny"
    shutil.copytree(tiny_bundle, out)
    write_evaluation(tmp_path, {})
    broken = copy.deepcopy(tiny_patronus)
    with torch.no_grad():
        broken.encoder.prototypes.fill_(torch.nan)
    with pytest.raises(ExportError, match="nan"):
        export(broken, tiny_dataset, tmp_path, out)
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]
    assert (out / MANIFEST).read_bytes() == (tiny_bundle / MANIFEST).read_bytes()
