from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from model.config import ImageConfig
from training.data import DataError, load_dataset, read_idx

WriteIdx = Callable[[Path, npt.NDArray[np.uint8]], None]

RAW = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
LABELS = np.array([5, 0, 4, 1, 9], np.uint8)
IMAGE = ImageConfig(1, 28, 28)


@pytest.fixture
def directory(tmp_path: Path, write_idx: WriteIdx) -> Path:
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", RAW)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", LABELS)
    return tmp_path


def test_gzipped_mnist_loads(directory: Path) -> None:
    dataset = load_dataset("mnist", directory, "test", IMAGE, cache=directory / "cache")
    np.testing.assert_array_equal(dataset.pixels[:, 0], RAW)
    np.testing.assert_array_equal(dataset.labels, LABELS)
    assert dataset.class_names == tuple("0123456789")


@pytest.mark.parametrize("dot", ["-", "."])
def test_unpacked_mnist_loads(directory: Path, dot: str) -> None:
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        packed = directory / f"{name}.gz"
        (directory / name.replace("-idx", f"{dot}idx")).write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    dataset = load_dataset("mnist", directory, "test", IMAGE, cache=directory / "cache")
    np.testing.assert_array_equal(dataset.pixels[:, 0], RAW)
    np.testing.assert_array_equal(dataset.labels, LABELS)


def test_a_missing_file_is_named_with_its_remedy_and_layout(directory: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset("mnist", directory, "train", IMAGE, cache=directory / "cache")
    message = str(caught.value)
    assert message.startswith(f"{directory / 'train-images-idx3-ubyte.gz'} is missing: get it from https://")
    assert "expected layout: a directory with train-images-idx3-ubyte.gz" in message


def test_a_broken_file_is_named_with_its_remedy_and_layout(directory: Path) -> None:
    (directory / "t10k-images-idx3-ubyte.gz").write_bytes(b"<html>")
    with pytest.raises(
        DataError, match=r"t10k-images.* is not a complete gzip file.*get it from.*expected layout"
    ):
        load_dataset("mnist", directory, "test", IMAGE, cache=directory / "cache")


def test_changed_files_are_read_again(directory: Path, write_idx: WriteIdx) -> None:
    load_dataset("mnist", directory, "test", IMAGE, cache=directory / "cache")
    write_idx(directory / "t10k-images-idx3-ubyte.gz", 255 - RAW)
    dataset = load_dataset("mnist", directory, "test", IMAGE, cache=directory / "cache")
    np.testing.assert_array_equal(dataset.pixels[:, 0], 255 - RAW)


def test_an_unpacked_idx_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing-ubyte is missing"):
        read_idx(tmp_path / "nothing-ubyte")
