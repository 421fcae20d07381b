from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.config import ImageConfig
from model.transforms import Pixels
from training.data import DataError, Dataset, load_dataset

SavePicture = Callable[..., Pixels]
Load = Callable[..., Dataset]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`datasets` reads these when it is imported, and then never leaves the machine."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    pytest.importorskip("datasets").disable_progress_bars()


@pytest.fixture
def pixels(tmp_path: Path, save_picture: SavePicture) -> dict[str, Pixels]:
    """An image folder of two classes, 3 images for training and 2 for testing."""
    names = ("train/ant/0.png", "train/bee/1.png", "train/bee/2.png", "test/ant/3.png", "test/bee/4.png")
    return {name: save_picture(tmp_path / "folder" / name, i) for i, name in enumerate(names)}


@pytest.fixture
def load(tmp_path: Path, image: ImageConfig) -> Load:
    def load(name: str, split: Any = "train") -> Dataset:
        return load_dataset(f"hf:{name}", tmp_path / "hf", split, image, cache=tmp_path / "cache")

    return load


def test_an_image_folder_loads(tmp_path: Path, pixels: dict[str, Pixels], load: Load) -> None:
    train, test = load(str(tmp_path / "folder")), load(str(tmp_path / "folder"), "test")
    np.testing.assert_array_equal(train.pixels, list(pixels.values())[:3])
    np.testing.assert_array_equal(test.pixels, list(pixels.values())[3:])
    assert train.class_names == test.class_names == ("ant", "bee")
    assert train.labels.tolist() == [0, 1, 1]
    assert test.labels.tolist() == [0, 1]


@pytest.fixture
def rows(tmp_path: Path, pixels: dict[str, Pixels]) -> Any:
    """The same as Hugging Face rows with two columns of images and classes in text and number columns."""
    import datasets

    names = [str(tmp_path / "folder" / name) for name in pixels]
    features = datasets.Features(
        {
            "id": datasets.Value("int32"),
            "photo": datasets.Image(),
            "reversed": datasets.Image(),
            "animal": datasets.Value("string"),
            "size": datasets.Value("int64"),
        }
    )
    columns = {
        "id": range(5),
        "photo": names,
        "reversed": names[::-1],
        "animal": ["cow", "ant", "cow", "bee", "cow"],
        "size": [10, 9, 9, 10, 8],
    }
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.fixture
def parquet(tmp_path: Path, rows: Any) -> str:
    """Parquet files with the pictures inside, for training and validation."""
    (tmp_path / "parquet").mkdir()
    rows.select(range(3)).to_parquet(tmp_path / "parquet" / "train-00000-of-00001.parquet")
    rows.select(range(3, 5)).to_parquet(tmp_path / "parquet" / "validation-00000-of-00001.parquet")
    return str(tmp_path / "parquet")


def test_parquet_loads_and_validation_stands_in_for_test(
    parquet: str, pixels: dict[str, Pixels], load: Load
) -> None:
    np.testing.assert_array_equal(load(parquet).pixels, list(pixels.values())[:3])
    np.testing.assert_array_equal(load(parquet, "test").pixels, list(pixels.values())[3:])
    assert load(parquet).class_names == ()


def test_columns_may_be_named(parquet: str, pixels: dict[str, Pixels], load: Load) -> None:
    train = load(f"{parquet}:reversed:animal")
    np.testing.assert_array_equal(train.pixels, list(pixels.values())[:-4:-1])
    assert train.class_names == ("ant", "bee", "cow")
    assert train.labels.tolist() == [2, 0, 2]
    sizes = load(f"{parquet}:photo:size", "test")
    assert sizes.class_names == ("8", "9", "10")
    assert sizes.labels.tolist() == [2, 0]
    np.testing.assert_array_equal(sizes.pixels, list(pixels.values())[3:])


def test_what_save_to_disk_wrote_loads(
    tmp_path: Path, rows: Any, pixels: dict[str, Pixels], load: Load
) -> None:
    import datasets

    datasets.DatasetDict({"train": rows, "test": rows.select([4])}).save_to_disk(tmp_path / "saved")
    np.testing.assert_array_equal(load(str(tmp_path / "saved")).pixels, list(pixels.values()))
    np.testing.assert_array_equal(load(str(tmp_path / "saved"), "test").pixels[0], pixels["test/bee/4.png"])


def test_a_changed_image_is_read_again(
    tmp_path: Path, pixels: dict[str, Pixels], load: Load, save_picture: SavePicture
) -> None:
    load(str(tmp_path / "folder"))
    changed = save_picture(tmp_path / "folder" / "train" / "ant" / "0.png", 99, size=(30, 20))
    np.testing.assert_array_equal(load(str(tmp_path / "folder")).pixels[0], changed)


def test_a_broken_picture_is_named(tmp_path: Path, pixels: dict[str, Pixels], load: Load) -> None:
    path = tmp_path / "folder" / "train" / "bee" / "1.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"folder has a picture 1 that cannot be used: .*get it from"):
        load(str(tmp_path / "folder"))


def test_an_unknown_column_is_told_the_known_ones(parquet: str, load: Load) -> None:
    with pytest.raises(
        DataError, match="has no column 'picture', its columns are id, photo, reversed, animal"
    ):
        load(f"{parquet}:picture")
    with pytest.raises(DataError, match="has no images in column size; its columns are id, photo"):
        load(f"{parquet}:size")
    with pytest.raises(DataError, match="in column reversed, row 0, which is no class"):
        load(f"{parquet}:photo:reversed")


def test_a_missing_split_is_told_the_known_ones(tmp_path: Path, rows: Any, load: Load) -> None:
    (tmp_path / "alone").mkdir()
    rows.to_parquet(tmp_path / "alone" / "train.parquet")
    with pytest.raises(
        DataError, match=r"alone has no test split, only train; get it from .*expected layout"
    ):
        load(str(tmp_path / "alone"), "test")


def test_an_id_that_cannot_be_reached_is_named(load: Load) -> None:
    with pytest.raises(DataError, match=r"hf:nobody/nothing cannot be loaded: .*get it from https"):
        load("nobody/nothing")


@pytest.mark.parametrize("name", ["", "a:b:c:d", "a::label", ":image"])
def test_a_malformed_name_is_refused(name: str, load: Load) -> None:
    with pytest.raises(DataError, match=r"is not of the form hf:<id>, hf:<id>:<image column>"):
        load(name)


def test_without_the_datasets_package_its_name_is_told(monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"hf:mnist needs the `datasets` package.*pip install datasets"):
        load("mnist")
