from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model.config import ImageConfig
from model.transforms import Pixels
from training.data import DataError, load_dataset

SavePicture = Callable[..., Pixels]

NAMES = [f"{i:06}.jpg" for i in range(1, 8)]
PARTITIONS = [0, 0, 2, 1, 0, 2, 1]
ATTRIBUTES = np.random.default_rng(0).choice([-1, 1], (7, 40))
ATTRIBUTE_NAMES = ["5_o_Clock_Shadow", *(f"Attribute_{i}" for i in range(38)), "Young"]


@pytest.fixture
def pixels(tmp_path: Path, save_picture: SavePicture) -> list[Pixels]:
    """CelebA as it is distributed, with 7 images."""
    lines = [
        f"{name}  {' '.join(f'{v:2d}' for v in row)}" for name, row in zip(NAMES, ATTRIBUTES, strict=True)
    ]
    text = "\n".join(["7", " ".join(ATTRIBUTE_NAMES) + " ", *lines]) + "\n"
    (tmp_path / "list_attr_celeba.txt").write_text(text)
    partition = [f"{name} {number}\n" for name, number in zip(NAMES, PARTITIONS, strict=True)]
    (tmp_path / "list_eval_partition.txt").write_text("".join(partition))
    return [
        save_picture(tmp_path / "img_align_celeba" / name, i, size=(18, 22)) for i, name in enumerate(NAMES)
    ]


def test_train_is_partition_0_and_test_partition_2(
    tmp_path: Path, pixels: list[Pixels], image: ImageConfig
) -> None:
    train = load_dataset("celeba", tmp_path, "train", image, cache=tmp_path / "cache")
    test = load_dataset("celeba", tmp_path, "test", image, cache=tmp_path / "cache")
    np.testing.assert_array_equal(train.pixels, np.stack([pixels[i] for i in (0, 1, 4)]))
    np.testing.assert_array_equal(test.pixels, np.stack([pixels[i] for i in (2, 5)]))


def test_attributes_become_0_and_1(tmp_path: Path, pixels: list[Pixels], image: ImageConfig) -> None:
    dataset = load_dataset("celeba", tmp_path, "train", image, cache=tmp_path / "cache")
    assert dataset.attribute_names == tuple(ATTRIBUTE_NAMES)
    assert dataset.attributes.dtype == np.int8
    np.testing.assert_array_equal(dataset.attributes, (ATTRIBUTES[[0, 1, 4]] + 1) // 2)
    assert dataset.class_names == ()


def test_the_authors_own_folders_are_found(tmp_path: Path, pixels: list[Pixels], image: ImageConfig) -> None:
    for folder, name in (
        ("Img", "img_align_celeba"),
        ("Anno", "list_attr_celeba.txt"),
        ("Eval", "list_eval_partition.txt"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / name).rename(tmp_path / folder / name)
    dataset = load_dataset("celeba", tmp_path, "test", image, cache=tmp_path / "cache")
    np.testing.assert_array_equal(dataset.pixels[0], pixels[2])


@pytest.mark.parametrize("name", ["list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba"])
def test_a_missing_part_is_named_with_remedy_and_layout(
    tmp_path: Path, pixels: list[Pixels], image: ImageConfig, name: str
) -> None:
    (tmp_path / name).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=f"{name} is missing: get it from https.*expected layout"):
        load_dataset("celeba", tmp_path, "train", image, cache=tmp_path / "cache")


def test_a_missing_image_is_named(tmp_path: Path, pixels: list[Pixels], image: ImageConfig) -> None:
    (tmp_path / "img_align_celeba" / "000005.jpg").unlink()
    with pytest.raises(DataError, match=r"000005.jpg is missing: get it from https"):
        load_dataset("celeba", tmp_path, "train", image, cache=tmp_path / "cache")


def test_a_truncated_image_is_named(tmp_path: Path, pixels: list[Pixels], image: ImageConfig) -> None:
    path = tmp_path / "img_align_celeba" / "000002.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"000002.jpg is not a usable image: .*truncated.*get it from https"):
        load_dataset("celeba", tmp_path, "train", image, cache=tmp_path / "cache")


def test_an_image_that_changed_is_read_again(
    tmp_path: Path, pixels: list[Pixels], image: ImageConfig, save_picture: SavePicture
) -> None:
    load_dataset("celeba", tmp_path, "test", image, cache=tmp_path / "cache")
    path = tmp_path / "img_align_celeba" / NAMES[2]
    changed = save_picture(path, 99, size=(18, 22))
    os.utime(path, ns=(1, 1))
    dataset = load_dataset("celeba", tmp_path, "test", image, cache=tmp_path / "cache")
    np.testing.assert_array_equal(dataset.pixels[0], changed)


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("list_attr_celeba.txt", "7\n", "8\n", "lists 7 images where its first line says 8"),
        ("list_attr_celeba.txt", "7\n5_o", "5_o", "does not begin with the number of images"),
        ("list_attr_celeba.txt", "Young", "", "has 40 values for 39 attributes in line 3"),
        (
            "list_attr_celeba.txt",
            "000002.jpg  ",
            "000002.jpg  7 ",
            "has '7' in line 4, an attribute is 1 or -1",
        ),
        (
            "list_attr_celeba.txt",
            "000002.jpg",
            "000009.jpg",
            "names 000002.jpg, which list_attr_celeba.txt lacks",
        ),
        ("list_eval_partition.txt", "000002.jpg 0", "000002.jpg 3", "has '000002.jpg 3' in line 2, expected"),
        ("list_eval_partition.txt", "000002.jpg 0", "000002.jpg", "has '000002.jpg' in line 2, expected"),
        ("list_eval_partition.txt", "000002.jpg", "../02.jpg", "names '../02.jpg' in line 2, outside of"),
        ("list_eval_partition.txt", "000002.jpg", "/etc/2.jpg", "names '/etc/2.jpg' in line 2, outside of"),
        ("list_eval_partition.txt", " 0\n", " 2\n", r"names no images of partition 0 \(train\)"),
    ],
)
def test_a_broken_table_is_named_with_its_line(
    tmp_path: Path, pixels: list[Pixels], image: ImageConfig, file: str, old: str, new: str, reason: str
) -> None:
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    with pytest.raises(DataError, match=f"{reason}.*expected layout"):
        load_dataset("celeba", tmp_path, "train", image, cache=tmp_path / "cache")


def test_a_table_that_is_no_text_is_named(tmp_path: Path, pixels: list[Pixels], image: ImageConfig) -> None:
    (tmp_path / "list_attr_celeba.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"list_attr_celeba.txt is not a readable text file"):
        load_dataset("celeba", tmp_path, "train", image, cache=tmp_path / "cache")
