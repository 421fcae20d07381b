from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from model.config import ImageConfig
from model.transforms import to_pixels
from training.data import (
    FASHION_MNIST_SHA256,
    DataError,
    download_fashion_mnist,
    load_fashion_mnist,
    read_idx,
)

WriteIdx = Callable[[Path, npt.NDArray[np.uint8]], None]

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
RAW = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)


@pytest.fixture
def directory(tmp_path: Path, write_idx: WriteIdx) -> Path:
    write_idx(tmp_path / IMAGES, RAW)
    write_idx(tmp_path / LABELS, np.arange(6, dtype=np.uint8))
    return tmp_path


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0,)])
def test_an_idx_file_gives_back_its_array(
    tmp_path: Path, write_idx: WriteIdx, shape: tuple[int, ...]
) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    write_idx(tmp_path / "array.gz", array)
    np.testing.assert_array_equal(read_idx(tmp_path / "array.gz"), array)


def test_training_pixels_are_what_serving_makes_of_the_same_png(directory: Path) -> None:
    dataset = load_fashion_mnist(directory, "train", ImageConfig())
    assert dataset.pixels.shape == (6, 1, 32, 32)
    for pixels, raw in zip(dataset.pixels, RAW, strict=True):
        file = io.BytesIO()
        Image.fromarray(raw).save(file, "PNG")
        picture = Image.open(io.BytesIO(file.getvalue()))
        np.testing.assert_array_equal(pixels, to_pixels(picture, ImageConfig()))


def test_labels_stay_with_their_images(directory: Path) -> None:
    dataset = load_fashion_mnist(directory, "train", ImageConfig(height=28, width=28))
    np.testing.assert_array_equal(dataset.pixels[:, 0], RAW)
    np.testing.assert_array_equal(dataset.labels, np.arange(6))
    assert len(dataset) == 6


def test_the_official_files_load(shared: Path) -> None:
    directory = shared / "data" / "fashion-mnist"
    dataset = load_fashion_mnist(directory, "test", ImageConfig())
    assert dataset.pixels.shape == (10_000, 1, 32, 32)
    np.testing.assert_array_equal(np.bincount(dataset.labels), np.full(10, 1000))


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_missing_file_is_named_with_its_remedy(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(DataError, match=rf"{name} is missing: get it from https://.*{name}"):
        load_fashion_mnist(directory, "train", ImageConfig())


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_truncated_download_is_named(directory: Path, name: str) -> None:
    content = (directory / name).read_bytes()
    (directory / name).write_bytes(content[:-9])
    with pytest.raises(DataError, match=f"{name} is not a complete gzip file"):
        load_fashion_mnist(directory, "train", ImageConfig())


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_a_file_that_is_not_gzip_is_named(directory: Path, content: bytes) -> None:
    (directory / IMAGES).write_bytes(content)
    with pytest.raises(DataError, match=IMAGES):
        load_fashion_mnist(directory, "train", ImageConfig())


def test_a_corrupt_gzip_file_is_named(directory: Path) -> None:
    content = bytearray((directory / IMAGES).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (directory / IMAGES).write_bytes(content)
    with pytest.raises(DataError, match=IMAGES):
        load_fashion_mnist(directory, "train", ImageConfig())


@pytest.mark.parametrize("content", [b"", b"\0", b"\0\0\x0d\x01\0\0\0\0", b"PNG!"])
def test_a_wrong_magic_number_is_named(directory: Path, content: bytes) -> None:
    (directory / LABELS).write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=rf"{LABELS} is not an idx file of unsigned bytes \(magic"):
        load_fashion_mnist(directory, "train", ImageConfig())


@pytest.mark.parametrize("content", [b"\0\0\x08\x01\0\0\0\x06abc", b"\0\0\x08\x01\0\0\0\x02abc"])
def test_a_header_that_disagrees_with_the_content_is_named(directory: Path, content: bytes) -> None:
    (directory / LABELS).write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=f"{LABELS} holds .* bytes where its header says"):
        load_fashion_mnist(directory, "train", ImageConfig())


@pytest.mark.parametrize("content", [b"\0\0\x08\x03\0\0\0\x02", b"\0\0\x08\x03\0"])
def test_a_header_that_is_cut_short_is_named(directory: Path, content: bytes) -> None:
    (directory / LABELS).write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=f"{LABELS} ends inside its header of 16 bytes"):
        load_fashion_mnist(directory, "train", ImageConfig())


@pytest.mark.parametrize("labels", [np.zeros(5, np.uint8), np.zeros((6, 1), np.uint8)])
def test_images_and_labels_that_do_not_belong_together_are_refused(
    directory: Path, write_idx: WriteIdx, labels: npt.NDArray[np.uint8]
) -> None:
    write_idx(directory / LABELS, labels)
    with pytest.raises(DataError, match="do not belong together") as caught:
        load_fashion_mnist(directory, "train", ImageConfig())
    assert str(directory) in str(caught.value)


def test_labels_without_a_class_are_refused(directory: Path, write_idx: WriteIdx) -> None:
    write_idx(directory / LABELS, np.array([0, 1, 2, 3, 4, 10], np.uint8))
    with pytest.raises(DataError, match=f"{LABELS}.*10"):
        load_fashion_mnist(directory, "train", ImageConfig())


def test_files_already_there_are_checked_and_never_fetched_again(tmp_path: Path) -> None:
    name = next(iter(FASHION_MNIST_SHA256))
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(DataError, match=f"{name} has sha256 .*, expected"):
        download_fashion_mnist(tmp_path)
    assert (tmp_path / name).read_bytes() == b"something else"
