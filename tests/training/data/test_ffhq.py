from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model.config import ImageConfig
from model.transforms import Pixels
from training.data import UNKNOWN, DataError, load_dataset
from training.data.ffhq import numbers_of

SavePicture = Callable[..., Pixels]


@pytest.fixture
def pixels(tmp_path: Path, save_picture: SavePicture) -> list[Pixels]:
    """14 images in the official subfolders of 1000; 12 of them in the first."""
    numbers = [*range(12), 1000, 1001]
    return [
        save_picture(tmp_path / "ffhq" / f"{number // 1000 * 1000:05}" / f"{number:05}.png", number)
        for number in numbers
    ]


def test_the_last_seventh_of_a_part_is_test(tmp_path: Path, pixels: list[Pixels], image: ImageConfig) -> None:
    train = load_dataset("ffhq", tmp_path / "ffhq", "train", image, cache=tmp_path)
    test = load_dataset("ffhq", tmp_path / "ffhq", "test", image, cache=tmp_path)
    np.testing.assert_array_equal(train.pixels, np.stack(pixels[:12]))
    np.testing.assert_array_equal(test.pixels, np.stack(pixels[12:]))


def test_one_flat_folder_loads_in_numerical_order(
    tmp_path: Path, image: ImageConfig, save_picture: SavePicture
) -> None:
    pixels = {number: save_picture(tmp_path / "ffhq" / f"{number}.png", number) for number in (10, 9, 1, 100)}
    train = load_dataset("ffhq", tmp_path / "ffhq", "train", image, cache=tmp_path)
    np.testing.assert_array_equal(train.pixels, np.stack([pixels[1], pixels[9], pixels[10]]))


def test_the_whole_data_set_is_split_at_image_60000() -> None:
    numbers = list(range(70_000))
    assert numbers_of("train", numbers) == numbers[:60_000]
    assert numbers_of("test", numbers) == numbers[60_000:]


def test_a_label_table_finds_its_images_by_number(
    tmp_path: Path, pixels: list[Pixels], image: ImageConfig
) -> None:
    (tmp_path / "ffhq" / "labels.csv").write_text("image,glasses,smile\n00001.png,1,0\n01000/01001.png,,1\n")
    train = load_dataset("ffhq", tmp_path / "ffhq", "train", image, cache=tmp_path)
    test = load_dataset("ffhq", tmp_path / "ffhq", "test", image, cache=tmp_path)
    assert train.attribute_names == ("glasses", "smile")
    assert train.attributes[1].tolist() == [1, 0]
    assert (np.delete(train.attributes, 1, axis=0) == UNKNOWN).all()
    assert test.attributes.tolist() == [[UNKNOWN, UNKNOWN], [UNKNOWN, 1]]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("00500.png,1,1", "labels.csv names 00500.png, which is no image of"),
        ("face.png,1,1", "labels.csv names face.png, which is no image of"),
        ("00001.png,1,0\n1.png,1,0", "labels.csv has two lines for image 1"),
    ],
)
def test_a_label_table_of_other_images_is_refused(
    tmp_path: Path, pixels: list[Pixels], image: ImageConfig, row: str, reason: str
) -> None:
    (tmp_path / "ffhq" / "labels.csv").write_text(f"image,glasses,smile\n{row}\n")
    with pytest.raises(DataError, match=reason):
        load_dataset("ffhq", tmp_path / "ffhq", "train", image, cache=tmp_path)


def test_two_versions_side_by_side_are_refused(
    tmp_path: Path, pixels: list[Pixels], image: ImageConfig, save_picture: SavePicture
) -> None:
    save_picture(tmp_path / "ffhq" / "thumbnails128x128" / "00000.png", 0)
    with pytest.raises(
        DataError, match=r"has image 0 twice, 00000/00000.png and thumbnails128x128/00000.png"
    ):
        load_dataset("ffhq", tmp_path / "ffhq", "train", image, cache=tmp_path)


def test_a_missing_or_empty_directory_is_told_where_to_get_it(tmp_path: Path, image: ImageConfig) -> None:
    with pytest.raises(DataError, match=r"nowhere is missing: get it from https.*expected layout"):
        load_dataset("ffhq", tmp_path / "nowhere", "train", image, cache=tmp_path)
    with pytest.raises(DataError, match=r"holds no .png files; get it from https.*expected layout"):
        load_dataset("ffhq", tmp_path, "train", image, cache=tmp_path)
    (tmp_path / "grid.png").touch()
    with pytest.raises(DataError, match="holds 0 numbered PNG files, too few to split"):
        load_dataset("ffhq", tmp_path, "train", image, cache=tmp_path)


def test_a_truncated_image_is_named(tmp_path: Path, pixels: list[Pixels], image: ImageConfig) -> None:
    path = tmp_path / "ffhq" / "00000" / "00003.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"00000/00003.png is not a usable image: .*get it from https"):
        load_dataset("ffhq", tmp_path / "ffhq", "train", image, cache=tmp_path)
