from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.config import ImageConfig
from model.transforms import Pixels, to_pixels
from training.data import UNKNOWN, DataError, Dataset, load_dataset
from training.data.image_folder import is_for_testing

SavePicture = Callable[..., Pixels]
Load = Callable[..., Dataset]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "folder"


@pytest.fixture
def load(folder: Path, tmp_path: Path, image: ImageConfig) -> Load:
    def load(split: Any = "train") -> Dataset:
        return load_dataset("folder", folder, split, image, cache=tmp_path / "cache")

    return load


@pytest.fixture
def four(folder: Path, save_picture: SavePicture) -> dict[str, Pixels]:
    """Two images for training, two for testing, split by hand and without classes."""
    names = ("test/c.png", "test/d.jpg", "train/a.png", "train/b.webp")
    return {name: save_picture(folder / name, i) for i, name in enumerate(names)}


def test_train_and_test_subfolders_are_the_splits(load: Load, four: dict[str, Pixels]) -> None:
    np.testing.assert_array_equal(load("train").pixels, [four["train/a.png"], four["train/b.webp"]])
    np.testing.assert_array_equal(load("test").pixels, [four["test/c.png"], four["test/d.jpg"]])
    assert load().class_names == ()
    assert load().attribute_names == ()


def test_without_them_each_image_is_in_one_split_and_about_a_tenth_in_test(
    folder: Path, load: Load, save_picture: SavePicture
) -> None:
    pixels = {f"{i:03}.png": save_picture(folder / f"{i:03}.png", i) for i in range(200)}
    train, test = load("train"), load("test")
    assert 8 <= len(test) <= 35
    np.testing.assert_array_equal(test.pixels, [pixels[name] for name in pixels if is_for_testing(name)])
    np.testing.assert_array_equal(train.pixels, [pixels[name] for name in pixels if not is_for_testing(name)])


def test_the_split_is_the_same_everywhere_and_for_ever() -> None:
    assert [i for i in range(40) if is_for_testing(f"{i:03}.png")] == [1, 3, 4, 6, 31]
    assert is_for_testing("caf\u00e9/1.png") == is_for_testing("cafe\u0301/1.png")


def test_class_subfolders_give_classes_that_both_splits_share(
    folder: Path, load: Load, save_picture: SavePicture
) -> None:
    for i, name in enumerate(("train/dog/1.png", "train/ant/2.png", "test/cat/3.png", "test/dog/x/4.png")):
        save_picture(folder / name, i)
    train, test = load("train"), load("test")
    assert train.class_names == test.class_names == ("ant", "cat", "dog")
    assert train.labels.tolist() == [0, 2]
    assert test.labels.tolist() == [1, 2]


def test_a_table_with_one_column_gives_classes(folder: Path, load: Load, four: dict[str, Pixels]) -> None:
    (folder / "labels.csv").write_text(
        "file,kind\ntrain/b.webp,zebra\ntest/c.png,ant\ntrain\\a.png, bee\n./test/d.jpg,ant\n"
    )
    assert load("train").class_names == ("ant", "bee", "zebra")
    assert load("train").labels.tolist() == [1, 2]
    assert load("test").labels.tolist() == [0, 0]


def test_classes_that_are_numbers_keep_their_order(folder: Path, load: Load, four: dict[str, Pixels]) -> None:
    (folder / "labels.csv").write_text("f,n\ntrain/a.png,10\ntrain/b.webp,9\ntest/c.png,2\ntest/d.jpg,10\n")
    assert load("train").class_names == ("2", "9", "10")
    assert load("train").labels.tolist() == [2, 1]


def test_a_table_with_several_columns_gives_attributes(
    folder: Path, load: Load, four: dict[str, Pixels]
) -> None:
    (folder / "labels.csv").write_text("file,round,red\ntrain/a.png,1,0\ntest/c.png,-1,\n\n")
    train, test = load("train"), load("test")
    assert train.attribute_names == ("round", "red")
    assert train.attributes.tolist() == [[1, 0], [UNKNOWN, UNKNOWN]]
    assert test.attributes.tolist() == [[UNKNOWN, UNKNOWN], [UNKNOWN, UNKNOWN]]
    assert train.class_names == ()


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("file,kind\n../secret.png,a", "names '../secret.png' in line 2: a file name must be relative"),
        ("file,kind\ntrain/../../x.png,a", "in line 2: a file name must be relative, without"),
        ("file,kind\n..\\x.png,a", "in line 2: a file name must be relative"),
        ("file,kind\n/etc/x.png,a", "names '/etc/x.png' in line 2: a file name must be relative"),
        ("file,kind\nC:\\x.png,a", "in line 2: a file name must be relative"),
        ("file,kind\n,a", "in line 2: a file name must be relative"),
        ("file,kind\ntrain/z.png,a", "names train/z.png, which is no image file in train/ and test/"),
        ("file,kind\ntrain/a.png,a", "gives no class to test/c.png"),
        ("file,kind\ntrain/a.png,a\ntrain/a.png,b", "names train/a.png twice, again in line 3"),
        ("file,kind\ntrain/a.png,a\ntest/c.png,", "has an empty class in line 3"),
        ("file,kind\ntrain/a.png,a,b", "has 3 cells in line 2 where its header has 2"),
        ("file,kind\n\ntrain/a.png,a", "has 0 cells in line 2"),
        ("file,x,y\ntrain/a.png,1,2", "has '2' in line 2, an attribute is 1, 0, -1 or empty"),
        ("file,x,y\ntrain/a.png,1,-1\ntest/c.png,-1,1", "has 1 and -1 but no 0: -1 means unknown"),
        ("file,x,x\ntrain/a.png,1,0", "has a column name twice"),
        ("file,kind", "does not hold a header, two columns and a line for an image"),
        ("", "does not hold a header"),
        ('file,kind\n"train/a.png,a', "is not a CSV file"),
    ],
)
def test_a_broken_table_is_named_with_its_line(
    folder: Path, load: Load, four: dict[str, Pixels], table: str, reason: str
) -> None:
    (folder / "labels.csv").write_text(table)
    with pytest.raises(DataError, match=f"labels.csv {'.*' if 'in line' in reason else ''}{reason}.*layout"):
        load()


def test_hidden_and_other_files_are_left_out(folder: Path, load: Load, four: dict[str, Pixels]) -> None:
    (folder / "train" / "._a.png").write_bytes(b"resource fork")
    (folder / "train" / "notes.txt").write_text("not an image")
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / ".cache" / "z.png").write_bytes(b"thumbnail")
    assert len(load()) == 2


def test_exif_orientation_is_obeyed_as_in_serving(folder: Path, load: Load, image: ImageConfig) -> None:
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        array = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
        picture = Image.fromarray(array)
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.save(folder / split / "turned.png", exif=exif)
    np.testing.assert_array_equal(load().pixels[0], to_pixels(picture.rotate(-90, expand=True), image))


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("I;16", "it has colour mode I;16: convert it to 8-bit"),
        ("RGBA", "it is transparent in places: flatten"),
    ],
)
def test_pictures_that_a_conversion_would_change_are_refused(
    folder: Path, load: Load, four: dict[str, Pixels], mode: str, reason: str
) -> None:
    Image.new(mode, (9, 9)).save(folder / "train" / "odd.png")
    with pytest.raises(DataError, match=f"train/odd.png is not a usable image: {reason}"):
        load()


def test_an_opaque_alpha_channel_is_left_out(folder: Path, load: Load, four: dict[str, Pixels]) -> None:
    with Image.open(folder / "train" / "a.png") as picture:
        picture.convert("RGBA").save(folder / "train" / "a.png")
    np.testing.assert_array_equal(load().pixels[0], four["train/a.png"])


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_a_file_that_is_no_image_is_named(
    folder: Path, load: Load, four: dict[str, Pixels], content: bytes
) -> None:
    (folder / "train" / "b.webp").write_bytes(content)
    with pytest.raises(DataError, match=r"train/b.webp is not a usable image: .*get it from your own images"):
        load()


def test_a_truncated_image_is_named(folder: Path, load: Load, four: dict[str, Pixels]) -> None:
    path = folder / "test" / "d.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"test/d.jpg is not a usable image: .*truncated"):
        load("test")


def test_a_missing_or_empty_folder_is_told_the_layout(folder: Path, load: Load) -> None:
    with pytest.raises(DataError, match=r"folder is missing: .*expected layout: a folder of .png"):
        load()
    folder.mkdir()
    with pytest.raises(DataError, match=r"folder holds no .png, .*expected layout"):
        load()


def test_a_split_without_images_is_said(folder: Path, load: Load, save_picture: SavePicture) -> None:
    save_picture(folder / "000.png", 0)
    with pytest.raises(DataError, match="has 1 images, none of them for test: add images"):
        load("test")
