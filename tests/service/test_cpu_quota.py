"""The limit on CPU time of a container, as its kernel tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.bundle import Bundle
from service.app import create_app
from service.cpu_quota import cores_of_quota
from service.engine.runner import Runner
from service.settings import SHIPPED_BUNDLE, Settings
from tests.service.conftest import fake_runner


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


@pytest.mark.parametrize(("asked", "given"), [(0, 3), (2, 2)])
def test_runners_have_as_many_threads_as_the_quota_unless_the_settings_say(asked: int, given: int) -> None:
    seen = []

    def make_runner(bundle: Bundle, settings: Settings) -> Runner:
        seen.append(settings.num_threads)
        return fake_runner(bundle, settings)

    settings = Settings(bundle=(SHIPPED_BUNDLE,), num_threads=asked, tune_batch="off")
    create_app(settings, make_runner, allowed_cores=lambda: 3)
    assert seen == [given]
