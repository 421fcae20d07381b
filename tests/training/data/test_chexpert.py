from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.config import ImageConfig
from model.transforms import Pixels, to_pixels
from training.data import UNKNOWN, DataError, load_dataset
from training.data.chexpert import CHEXPERT_FINDINGS

SavePicture = Callable[..., Pixels]

RADIOGRAPH = ImageConfig(1, 224, 224)
HEADER = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(CHEXPERT_FINDINGS)}"
FRONTAL = "train/patient00001/study1/view1_frontal.jpg"
LATERAL = "train/patient00001/study1/view2_lateral.jpg"
OTHER = "train/patient00002/study3/view1_frontal.jpg"
VALID = "valid/patient64541/study1/view1_frontal.jpg"


@pytest.fixture
def root(tmp_path: Path, save_picture: SavePicture) -> Path:
    """Three views of two patients and one of a third for validation, as the small version has them."""
    root = tmp_path / "CheXpert-v1.0-small"
    for seed, name in enumerate((FRONTAL, LATERAL, OTHER, VALID)):
        save_picture(root / name, seed, size=(39, 32), mode="L")
    prefix = "CheXpert-v1.0-small/"
    train = [
        HEADER,
        f"{prefix}{FRONTAL},Female,68,Frontal,AP,1.0,,0.0,-1.0,,,,,,0.0,,,,1.0",
        f"{prefix}{LATERAL},Female,68,Lateral,,1.0,,,,,,,,,0.0,,,,1.0",
        f"{prefix}{OTHER},Male,30,Frontal,PA,,,,,,-1.0,,,,,1.0,,1.0,",
    ]
    (root / "train.csv").write_text("\n".join(train) + "\n")
    zeros = ",".join(["0.0"] * 13)
    (root / "valid.csv").write_text(f"{HEADER}\n{prefix}{VALID},Male,73,Frontal,AP,{zeros},1.0\n")
    return root


def expected(root: Path, *names: str) -> Pixels:
    return np.stack([to_pixels(Image.open(root / name), RADIOGRAPH) for name in names])


def test_frontal_views_of_both_tables_load(root: Path, tmp_path: Path) -> None:
    train = load_dataset("chexpert", root, "train", RADIOGRAPH, cache=tmp_path / "cache")
    test = load_dataset("chexpert", root, "test", RADIOGRAPH, cache=tmp_path / "cache")
    assert train.pixels.shape == (2, 1, 224, 224)
    np.testing.assert_array_equal(train.pixels, expected(root, FRONTAL, OTHER))
    np.testing.assert_array_equal(test.pixels, expected(root, VALID))


def test_uncertain_and_unmentioned_findings_are_unknown(root: Path, tmp_path: Path) -> None:
    dataset = load_dataset("chexpert", root, "train", RADIOGRAPH, cache=tmp_path / "cache")
    assert dataset.attribute_names == CHEXPERT_FINDINGS
    u = UNKNOWN
    assert dataset.attributes.tolist() == [
        [1, u, 0, u, u, u, u, u, u, 0, u, u, u, 1],
        [u, u, u, u, u, u, u, u, u, u, 1, u, 1, u],
    ]


def test_the_directory_above_may_be_named(root: Path, tmp_path: Path) -> None:
    dataset = load_dataset("chexpert", tmp_path, "test", RADIOGRAPH, cache=tmp_path / "cache")
    np.testing.assert_array_equal(dataset.pixels, expected(root, VALID))


@pytest.mark.parametrize(("split", "table"), [("train", "train.csv"), ("test", "valid.csv")])
def test_a_missing_table_is_named_with_remedy_and_layout(
    root: Path, tmp_path: Path, split: str, table: str
) -> None:
    (root / table).unlink()
    with pytest.raises(DataError, match=f"{table} is missing: get it from https.*expected layout"):
        load_dataset("chexpert", root, split, RADIOGRAPH, cache=tmp_path / "cache")  # type: ignore[arg-type]


def test_a_missing_image_is_named(root: Path, tmp_path: Path) -> None:
    (root / OTHER).unlink()
    with pytest.raises(DataError, match=f"{OTHER} is missing: get it from https"):
        load_dataset("chexpert", root, "train", RADIOGRAPH, cache=tmp_path / "cache")


def test_a_truncated_image_is_named(root: Path, tmp_path: Path) -> None:
    (root / OTHER).write_bytes((root / OTHER).read_bytes()[:-200])
    with pytest.raises(DataError, match=f"{OTHER} is not a usable image: .*truncated"):
        load_dataset("chexpert", root, "train", RADIOGRAPH, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("Pneumonia", "Pneumonias", "lacks the columns Pneumonia;"),
        ("Path,", "File,", "lacks the columns Path;"),
        (
            f"CheXpert-v1.0-small/{OTHER}",
            "../../secret.jpg",
            "names '../../secret.jpg', outside of its folder, in line 4",
        ),
        (
            f"CheXpert-v1.0-small/{OTHER}",
            "/etc/secret.jpg",
            "names '/etc/secret.jpg', outside of its folder, in line 4",
        ),
        ("Lateral,,1.0", "Oblique,,1.0", "has the view 'Oblique', expected Frontal or Lateral in line 3"),
        ("AP,1.0", "AP,2.0", "has '2.0', a finding is 1.0, 0.0, -1.0 or empty, in line 2"),
        (",1.0,,1.0,\n", ",1.0\n", "has too few cells in line 4"),
        ("Frontal,", "Lateral,", "names no frontal views"),
    ],
)
def test_a_broken_table_is_named_with_its_line(
    root: Path, tmp_path: Path, old: str, new: str, reason: str
) -> None:
    text = (root / "train.csv").read_text()
    assert old in text
    (root / "train.csv").write_text(text.replace(old, new))
    with pytest.raises(DataError, match=f"train.csv {reason}.*layout"):
        load_dataset("chexpert", root, "train", RADIOGRAPH, cache=tmp_path / "cache")
