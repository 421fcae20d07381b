from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.config import ImageConfig
from training.data import DATASETS, DataError, load_dataset


def test_an_unknown_name_is_told_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"must be fashion-mnist, mnist, .* or hf:<data set id>, not 'imagenet'"
    ):
        load_dataset("imagenet", tmp_path, "train", ImageConfig())


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_of_files_needs_a_directory(name: str) -> None:
    with pytest.raises(DataError, match=f"{name} needs a directory"):
        load_dataset(name, None, "train", ImageConfig())


@pytest.mark.parametrize("name", DATASETS)
def test_a_directory_that_is_missing_is_told_where_to_get_it_and_its_layout(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"nowhere.* is missing: get it from .*expected layout"):
        load_dataset(name, tmp_path / "nowhere", "test", ImageConfig(), cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    split: Any = "valid"
    with pytest.raises(DataError, match="split must be train or test, not 'valid'"):
        load_dataset("mnist", tmp_path, split, ImageConfig())


def test_only_fashion_mnist_can_be_downloaded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="celeba cannot be downloaded, only fashion-mnist can"):
        load_dataset("celeba", tmp_path, "train", ImageConfig(), download=True)


def test_fashion_mnist_loads_from_its_official_files(shared: Path, tmp_path: Path) -> None:
    directory = shared / "data" / "fashion-mnist"
    dataset = load_dataset("fashion-mnist", directory, "test", ImageConfig(), cache=tmp_path)
    assert dataset.pixels.shape == (10_000, 1, 32, 32)
    assert dataset.class_names[9] == "Ankle boot"
