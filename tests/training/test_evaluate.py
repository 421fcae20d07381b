from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.encoder import similarity
from model.patronus import Patronus
from training.data import Dataset
from training.evaluate import (
    EvaluationError,
    distance_at,
    evaluate,
    mean_psnr_db,
    read_evaluation,
    write_evaluation,
)


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    return [value]


def test_an_untrained_model_gets_finite_figures_and_keeps_its_weights(
    tiny_config: ModelConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    patronus = Patronus(tiny_config).eval()
    before = {name: value.clone() for name, value in patronus.state_dict().items()}
    metrics = evaluate(patronus, tiny_dataset, tiny_dataset, num_samples=16)
    for name, value in patronus.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(math.isfinite(number) for number in numbers(metrics))
    assert set(metrics["conditioning"]) == {"num_images", "t_4", "t_12", "t_24"}  # of T = 40
    assert 1 <= metrics["prototypes"]["num_distinct_exemplars"] <= 4
    assert "ddim_inversion_20_steps_psnr_db" in metrics["reconstruction"]
    assert "fd_classifier_dpmpp_2m_20_steps_resampled_s" in metrics["samples"]
    noise = metrics["samples"]["fd_classifier_ddim_20_steps_learned_s"]
    assert noise > metrics["samples"]["fd_classifier_real_train_images"]

    write_evaluation(tmp_path, metrics)
    assert read_evaluation(tmp_path) == metrics


@pytest.mark.parametrize("num_samples", [1, 65])
def test_more_samples_than_images_are_refused(
    tiny_config: ModelConfig, tiny_dataset: Dataset, num_samples: int
) -> None:
    with pytest.raises(EvaluationError, match=f"num_samples must be 2 to 64, not {num_samples}"):
        evaluate(Patronus(tiny_config), tiny_dataset, tiny_dataset, num_samples=num_samples)


def test_a_table_of_all_figures_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_evaluation(tmp_path, {"num_images": 7, "probe": {"accuracy_test": 0.25}})
    assert capsys.readouterr().out.splitlines() == [
        "num_images           7",
        "probe.accuracy_test  0.2500",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_figures_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    with pytest.raises(EvaluationError, match=r"not finite.*probe\.accuracy_test"):
        write_evaluation(tmp_path, {"probe": {"accuracy_test": value}})
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_evaluation_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"evaluation\.json is missing: run .* evaluate. first"):
        read_evaluation(tmp_path)


@pytest.mark.parametrize("content", ["", "{", json.dumps([1])])
def test_a_damaged_evaluation_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(EvaluationError, match=r"evaluation\.json (cannot be read|must hold an object)"):
        read_evaluation(tmp_path)


def test_psnr_is_the_mean_over_images_with_perfect_ones_capped() -> None:
    expected = np.full((2, 1, 4, 4), 100, np.uint8)
    found = expected.copy()
    found[1] += 51  # a fifth of the range: 20 log10(5) dB
    assert mean_psnr_db(expected, found) == pytest.approx((100.0 + 20 * math.log10(5)) / 2)
    assert mean_psnr_db(found, expected) == mean_psnr_db(expected, found)


def test_distance_is_the_inverse_of_similarity() -> None:
    distances = torch.tensor([0.0, 1e-3, 0.5, 3.0, 100.0], dtype=torch.float64)
    np.testing.assert_allclose(distance_at(similarity(distances).numpy()), distances, atol=1e-9)
    assert math.isfinite(distance_at(np.zeros(1))[0])
