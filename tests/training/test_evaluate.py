from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.patronus import Patronus
from training.data import UNKNOWN, Dataset
from training.evaluate import (
    EvaluationError,
    evaluate,
    read_evaluation,
    require_weights,
    weights_digest,
    write_evaluation,
)


class Means(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.to(torch.float32).flatten(2).mean(dim=2)


class MeanDifference(nn.Module):
    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return (one - other).abs().mean(dim=(1, 2, 3))


@pytest.fixture(scope="module")
def untrained(tiny_config: ModelConfig) -> Patronus:
    torch.manual_seed(0)
    return Patronus(tiny_config).eval()


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, list) else [value]


def with_attributes(dataset: Dataset, *, classes: bool) -> Dataset:
    """Whether the label is odd, whether it is above 4, of every seventh image unknown; one never varies."""
    columns = [dataset.labels % 2, dataset.labels > 4, np.zeros_like(dataset.labels)]
    attributes = np.stack(columns, axis=1).astype(np.int8)
    attributes[::7, 0] = UNKNOWN
    return Dataset(
        dataset.pixels,
        dataset.labels if classes else np.zeros_like(dataset.labels),
        dataset.class_names if classes else (),
        attributes,
        ("odd", "above 4", "never"),
    )


def test_an_untrained_model_gets_finite_figures_and_keeps_its_weights(
    untrained: Patronus, tiny_dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: value.clone() for name, value in untrained.state_dict().items()}
    metrics = evaluate(untrained, tiny_dataset, tiny_dataset, num_samples=16, dataset_name="fashion-mnist")
    for name, value in untrained.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(math.isfinite(leaf) for leaf in leaves(metrics) if not isinstance(leaf, str))
    assert set(metrics["conditioning"]) == {"num_images", "t_4", "t_12", "t_24"}  # of T = 40
    assert 1 <= metrics["prototypes"]["num_distinct_exemplars"] <= 4
    assert metrics["samples"].keys() > {
        "fd_classifier_real_train_images",
        "fd_classifier_ddim_20_steps_learned_s",
        "fd_classifier_dpmpp_2m_20_steps_resampled_s",
    }
    assert not any(name.startswith("fid") for name in metrics["samples"])
    for figure in ("mse", "psnr_db", "ssim"):
        assert f"ddim_inversion_20_steps_{figure}" in metrics["reconstruction"]
    assert metrics["not_measured"].keys() == {
        "samples from prior_s",
        "samples with 50 steps",  # T = 40
        "samples.fid",
        "reconstruction.lpips",
    }
    noise = metrics["samples"]["fd_classifier_ddim_20_steps_learned_s"]
    assert noise > metrics["samples"]["fd_classifier_real_train_images"]
    assert "null" not in json.dumps(metrics)

    write_evaluation(tmp_path, metrics)
    assert read_evaluation(tmp_path) == metrics
    table = (tmp_path / "evaluation.md").read_text()
    assert "| | ours | published |" in table
    assert table in capsys.readouterr().out


def test_the_record_names_what_was_measured(
    untrained: Patronus, tiny_dataset: Dataset, tiny_config: ModelConfig
) -> None:
    metrics = evaluate(untrained, tiny_dataset, tiny_dataset, num_samples=4, steps=(3, 2, 3), seed=7)
    assert metrics["measured"] == {
        "weights_sha256": weights_digest(untrained),
        "dataset": "unnamed",
        "num_samples": 4,
        "steps": [2, 3],
        "seed": 7,
        "device": "cpu",
        "torch": torch.__version__,
    }
    assert metrics["num_test_images"] == 64
    assert "fd_classifier_dpmpp_2m_2_steps_learned_s" in metrics["samples"]
    require_weights(metrics, untrained)
    torch.manual_seed(1)
    with pytest.raises(EvaluationError, match=r"measured the weights .*, not these"):
        require_weights(metrics, Patronus(tiny_config))


@pytest.mark.parametrize(("classes", "attributes"), [(True, True), (False, True), (False, False)])
def test_rows_follow_what_the_data_set_says_of_its_images(
    untrained: Patronus, tiny_dataset: Dataset, classes: bool, attributes: bool
) -> None:
    dataset = Dataset(tiny_dataset.pixels, np.zeros_like(tiny_dataset.labels))
    if attributes:
        dataset = with_attributes(tiny_dataset, classes=classes)
    metrics = evaluate(untrained, dataset, dataset, num_samples=4, steps=(2,))
    absent = metrics["not_measured"]
    assert ("accuracy_5_fold" in metrics["probe"]) == classes
    assert ("auroc_5_fold" in metrics["probe"]) == attributes
    assert ("tad" in metrics) == attributes
    assert ("fd_classifier_ddim_2_steps_learned_s" in metrics["samples"]) == attributes
    for name in ("probe", "tad", "samples.fd_classifier"):
        if not attributes:
            assert absent[name] == "the data set has neither classes nor attributes"
        else:
            assert name not in absent
    if attributes:
        assert metrics["tad"]["of"] == "attributes"
        assert metrics["tad"]["num_attributes"] == metrics["probe"]["auroc_num_attributes"] == 2
        assert metrics["tad"]["num_prototypes"] == 4


def test_classes_alone_give_tad_of_one_class_against_the_rest(
    untrained: Patronus, tiny_dataset: Dataset
) -> None:
    tad = evaluate(untrained, tiny_dataset, tiny_dataset, num_samples=4, steps=(2,))["tad"]
    assert tad["of"] == "classes"
    assert tad["num_attributes"] == 10
    assert len(tad["captured"]) == tad["num_captured"]


def test_a_data_set_too_small_for_folds_says_so(untrained: Patronus, tiny_dataset: Dataset) -> None:
    few = dataclasses.replace(
        tiny_dataset,
        pixels=tiny_dataset.pixels[:30],
        labels=tiny_dataset.labels[:30],
        attributes=np.array([[1]] * 4 + [[0]] * 26, np.int8),
        attribute_names=("rare",),
    )
    metrics = evaluate(untrained, few, few, num_samples=4, steps=(2,))
    assert metrics["probe"].keys() == {"accuracy_test"}
    assert "a class has fewer than 5" in metrics["not_measured"]["probe.accuracy_5_fold"]
    assert "no attribute has both values" in metrics["not_measured"]["probe.auroc"]

    one_class = dataclasses.replace(tiny_dataset, labels=np.zeros_like(tiny_dataset.labels))
    metrics = evaluate(untrained, one_class, one_class, num_samples=4, steps=(2,))
    assert metrics["probe"] == {}
    assert metrics["not_measured"]["probe.accuracy"] == "all training images are of one class"


def test_given_networks_add_fid_and_lpips_without_needing_labels(
    untrained: Patronus, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    for network, name in ((Means(), "inception.pt"), (MeanDifference(), "lpips.pt")):
        torch.jit.script(network).save(tmp_path / name)  # type: ignore[no-untyped-call]
    unlabelled = Dataset(tiny_dataset.pixels, np.zeros_like(tiny_dataset.labels))
    metrics = evaluate(
        untrained,
        unlabelled,
        unlabelled,
        num_samples=4,
        steps=(2,),
        inception_weights=tmp_path / "inception.pt",
        lpips_weights=tmp_path / "lpips.pt",
    )
    assert "fid_ddim_2_steps_learned_s" in metrics["samples"]
    assert not any(name.startswith("fd_classifier") for name in metrics["samples"])
    assert metrics["reconstruction"]["ddim_inversion_20_steps_lpips"] > 0.0
    assert len(metrics["measured"]["inception_weights_sha256"]) == 64
    assert len(metrics["measured"]["lpips_weights_sha256"]) == 64
    assert metrics["not_measured"].keys().isdisjoint({"samples.fid", "reconstruction.lpips"})


def test_a_latent_prior_adds_samples_of_its_own_s(untrained: Patronus, tiny_dataset: Dataset) -> None:
    counts = []

    def sample_s(rng: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
        counts.append(count)
        return rng.uniform(0.0, 3.0, (count, 4)).astype(np.float32)

    metrics = evaluate(untrained, tiny_dataset, tiny_dataset, num_samples=6, steps=(2,), sample_s=sample_s)
    assert counts == [6]
    assert "fd_classifier_dpmpp_2m_20_steps_prior_s" in metrics["samples"]
    assert "samples from prior_s" not in metrics["not_measured"]


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        (np.zeros((6, 3), np.float32), r"of shape \(6, 4\), it gave shape \(6, 3\)"),
        (np.full((6, 4), np.nan, np.float32), "values that are not finite"),
    ],
)
def test_a_prior_that_draws_no_activations_is_refused(
    untrained: Patronus, tiny_dataset: Dataset, drawn: npt.NDArray[np.float32], message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        evaluate(untrained, tiny_dataset, tiny_dataset, num_samples=6, sample_s=lambda rng, count: drawn)


@pytest.mark.parametrize("num_samples", [1, 65])
def test_more_samples_than_images_are_refused(
    untrained: Patronus, tiny_dataset: Dataset, num_samples: int
) -> None:
    with pytest.raises(EvaluationError, match=f"num_samples must be 2 to 64, not {num_samples}"):
        evaluate(untrained, tiny_dataset, tiny_dataset, num_samples=num_samples)


@pytest.mark.parametrize("steps", [(), (0, 10)])
def test_no_steps_are_refused(untrained: Patronus, tiny_dataset: Dataset, steps: tuple[int, ...]) -> None:
    with pytest.raises(EvaluationError, match="steps must be one or more numbers of at least 1"):
        evaluate(untrained, tiny_dataset, tiny_dataset, num_samples=2, steps=steps)


def test_a_wrong_path_is_reported_before_anything_is_measured(
    untrained: Patronus, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    absent = tmp_path / "absent.pt"
    with pytest.raises(EvaluationError, match=r"absent\.pt is missing"):
        evaluate(untrained, tiny_dataset, tiny_dataset, num_samples=2, inception_weights=absent)
    with pytest.raises(EvaluationError, match=r"absent\.pt is missing"):
        evaluate(untrained, tiny_dataset, tiny_dataset, num_samples=2, lpips_weights=absent)
