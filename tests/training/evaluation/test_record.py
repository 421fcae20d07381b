from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.evaluation.error import EvaluationError
from training.evaluation.record import read_evaluation, write_evaluation


def test_a_table_of_all_figures_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"num_images": 7, "probe": {"accuracy_test": 0.25}}
    write_evaluation(tmp_path, metrics)
    assert capsys.readouterr().out.splitlines() == [
        "num_images           7",
        "probe.accuracy_test  0.2500",
    ]
    assert read_evaluation(tmp_path) == metrics


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
