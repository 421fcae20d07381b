"""The limit on CPU time of a container, as its kernel tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.cpu_quota import cores_of_quota


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("200000 100000", 2),
        ("350000 100000", 3),
        ("50000 100000", 1),
        ("max 100000", 0),
        ("1600000 100000", 0),
        ("", 0),
        ("1 0", 0),
    ],
)
def test_quota_is_worth_whole_cores(tmp_path: Path, text: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert cores_of_quota(tmp_path, num_cores=16) == cores


@pytest.mark.parametrize(("quota", "cores"), [("400000", 4), ("-1", 0)])
def test_quota_of_an_older_kernel_is_known_too(tmp_path: Path, quota: str, cores: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores_of_quota(tmp_path, num_cores=16) == cores


def test_nothing_is_known_without_containers(tmp_path: Path) -> None:
    assert cores_of_quota(tmp_path, num_cores=16) == 0
