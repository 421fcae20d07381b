"""CheXpert: chest radiographs with 14 findings."""

from __future__ import annotations

import csv
import io
from pathlib import Path, PurePosixPath

import numpy as np

from training.data.dataset import UNKNOWN, Split
from training.data.source import Annotations, FileSource, Origin

CHEXPERT_FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other",
    "Fracture", "Support Devices",
)  # fmt: skip
CHEXPERT_ORIGIN = Origin(
    "https://stanfordmlgroup.github.io/competitions/chexpert/ (CheXpert-v1.0-small is enough for 224 pixels)",
    "a directory, or the one above it, CheXpert-v1.0-small with train.csv, valid.csv, "
    "train/patient00001/study1/view1_frontal.jpg and so on, valid/patient64541/…",
)

_TABLES: dict[Split, str] = {"train": "train.csv", "test": "valid.csv"}
_PATH, _VIEW = "Path", "Frontal/Lateral"
_VALUES = {"": UNKNOWN, "1.0": 1, "0.0": 0, "-1.0": UNKNOWN, "1": 1, "0": 0, "-1": UNKNOWN}


def chexpert_source(directory: Path, split: Split) -> FileSource:
    """CheXpert (Irvin et al. 2019), frontal views only: train.csv is train, valid.csv is test.

    A finding is 1, 0, or UNKNOWN: both what the radiologist called uncertain (-1) and what the report
    does not mention (empty). Raises DataError.
    """
    root = _find(directory, _TABLES[split])
    path = root / _TABLES[split]
    reader = csv.DictReader(io.StringIO(CHEXPERT_ORIGIN.read_text(path)), strict=True)
    columns = reader.fieldnames or ()
    lacking = [name for name in (_PATH, _VIEW, *CHEXPERT_FINDINGS) if name not in columns]
    if lacking:
        raise CHEXPERT_ORIGIN.broken(path, f"lacks the columns {', '.join(lacking)}")
    names: list[str] = []
    findings: list[list[int]] = []
    try:
        for row in reader:
            if row[_VIEW] not in ("Frontal", "Lateral"):
                raise ValueError(f"has the view {row[_VIEW]!r}, expected Frontal or Lateral")
            if row[_VIEW] == "Frontal":
                names.append(_file_name(row[_PATH]))
                findings.append([_finding(row[name]) for name in CHEXPERT_FINDINGS])
    except (ValueError, csv.Error) as error:
        raise CHEXPERT_ORIGIN.broken(path, f"{error} in line {reader.line_num}") from error
    if not names:
        raise CHEXPERT_ORIGIN.broken(path, "names no frontal views")
    attributes = np.array(findings, np.int8)
    annotations = Annotations(np.zeros(len(names), np.int64), (), attributes, CHEXPERT_FINDINGS)
    return FileSource(root, tuple(names), annotations, CHEXPERT_ORIGIN)


def _find(directory: Path, table: str) -> Path:
    for root in (directory, *sorted(directory.glob("CheXpert-v1.0*"))):
        if (root / table).is_file():
            return root
    raise CHEXPERT_ORIGIN.missing(directory / table)


def _file_name(cell: str) -> str:
    """A path relative to the root; in the table it begins with the root's own name."""
    parts = PurePosixPath(cell).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise ValueError(f"names {cell!r}, outside of its folder,")
    if parts[0].startswith("CheXpert-"):
        parts = parts[1:]
    return "/".join(parts)


def _finding(cell: str | None) -> int:
    if cell is None:
        raise ValueError("has too few cells")
    if cell not in _VALUES:
        raise ValueError(f"has {cell!r}, a finding is 1.0, 0.0, -1.0 or empty,")
    return _VALUES[cell]
