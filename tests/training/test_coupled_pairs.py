"""Pairs to decouple, as the command line names them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model.config import ConfigError
from training.__main__ import main
from training.coupled_pairs import coupled_pairs


def coupling(j: int | None, k: int, leakage: float | None, *, is_established: bool = True) -> dict[str, Any]:
    return {"prototype": j, "affected": k, "leakage": leakage, "is_established": is_established}


def report(tmp_path: Path, *couplings: dict[str, Any], m: int = 30) -> str:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"effects": {"effect": [[0.0] * m]}, "couplings": couplings}))
    return str(path)


def test_pairs_are_named_one_by_one() -> None:
    assert coupled_pairs("3:7,4:9", 30) == [[3, 7], [4, 9]]


def test_the_first_established_couplings_that_leak_are_taken_from_a_diagnosis(tmp_path: Path) -> None:
    path = report(
        tmp_path,
        coupling(3, 7, 0.4),
        coupling(4, 9, 0.05),
        coupling(5, 6, None),
        coupling(4, 8, -0.3),
        coupling(3, 7, 0.2),  # the same prototype lowered
        coupling(1, 2, 0.9, is_established=False),
        coupling(None, 6, 0.9),  # an attribute was changed
        coupling(8, 4, 0.2),
    )
    assert coupled_pairs(path, 30) == [[3, 7], [4, 8], [8, 4]]
    assert coupled_pairs(path, 30, top=2) == [[3, 7], [4, 8]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3-7", "takes pairs such as 3:7,4:9, or a diagnosis in a .json file, not '3-7'"),
        ("", "takes pairs"),
        ("nowhere.json", "nowhere.json cannot be read"),
    ],
)
def test_what_names_no_pairs_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        coupled_pairs(text, 30)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold an object"),
        ("{}", "no answer of POST /diagnose: KeyError"),
        ('{"effects": {"effect": []}, "couplings": []}', "no answer of POST /diagnose: IndexError"),
        ('{"effects": {"effect": [[0.0]]}, "couplings": [1]}', "no answer of POST /diagnose: TypeError"),
    ],
)
def test_a_file_that_is_no_diagnosis_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        coupled_pairs(str(path), 30)


def test_a_diagnosis_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a model of 48 prototypes, this run has 30"):
        coupled_pairs(report(tmp_path, coupling(3, 7, 0.4), m=48), 30)


def test_a_diagnosis_without_such_couplings_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no established coupling with a leakage of 0\.1 or more"):
        coupled_pairs(report(tmp_path, coupling(3, 7, 0.04)), 30)


def test_the_configuration_has_the_pairs_that_the_options_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = report(tmp_path, coupling(3, 7, 0.4), coupling(4, 8, -0.3))
    for words, expected in (
        (["--decouple", "3:7,4:9"], [[3, 7], [4, 9]]),
        (["--decouple", path, "--top", "1"], [[3, 7]]),
        (["--set", "loss.decoupled_pairs=[[1, 2]]"], [[1, 2]]),
        ([], []),
    ):
        assert main(["train", "--dry-run", *words]) == 0
        assert json.loads(capsys.readouterr().out)["loss"]["decoupled_pairs"] == expected
    assert main(["train", "--dry-run", "--decouple", "3:30"]) == 1
    assert "prototypes 0 to 29" in capsys.readouterr().err
