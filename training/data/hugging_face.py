"""An image data set of the Hugging Face hub, or one in its formats on disk, read by `datasets`."""

from __future__ import annotations

import importlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.data.dataset import DataError, Split
from training.data.label_table import class_labels
from training.data.source import Annotations, Origin, file_fingerprint, opaque

_SPLITS: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("test", "validation", "valid", "val")}


def hugging_face_source(name: str, split: Split, *, cache: Path | None = None) -> HuggingFaceSource:
    """`name` is `<id>` or `<id>:<image column>` or `<id>:<image column>:<label column>`.

    The id is one of the hub, or a local path: an image folder, parquet files, or what `save_to_disk` wrote.
    Columns not named are the first that hold images and classes. For "test", validation images are taken
    where there are no test images. `cache` is where `datasets` keeps what it downloads and prepares.
    Raises DataError.
    """
    identifier, *columns = name.split(":")
    if not identifier or len(columns) > 2 or "" in columns:
        raise DataError(f"hf:{name} is not of the form hf:<id>, hf:<id>:<image column>[:<label column>]")
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"hf:{name} needs the `datasets` package, which cannot be imported ({error}): "
            "pip install datasets"
        ) from error
    origin = Origin(
        f"https://huggingface.co/datasets/{identifier}",
        "splits train and test (or validation), with a column of images and optionally one of classes; "
        "a local path holds train/ and test/ with class folders, parquet files, or what save_to_disk wrote",
    )
    splits = _load(datasets, identifier, cache, origin)
    chosen = next((here for here in _SPLITS[split] if here in splits), None)
    if chosen is None:
        raise origin.broken(f"hf:{identifier}", f"has no {split} split, only {', '.join(splits)}")
    rows = splits[chosen]
    features = rows.features
    kinds = {"image": datasets.Image, "class": datasets.ClassLabel}
    image_column = _column(identifier, features, kinds["image"], columns[:1], origin)
    if image_column is None or not isinstance(features[image_column], datasets.Image):
        raise origin.broken(
            f"hf:{identifier}",
            f"has no images in column {image_column}; its columns are {', '.join(features)}",
        )
    label_column = _column(identifier, features, kinds["class"], columns[1:], origin)
    if label_column is None:
        annotations = Annotations.none(len(rows))
    elif isinstance(features[label_column], datasets.ClassLabel):
        labels = _known(f"hf:{identifier}", label_column, rows[label_column][:], origin)
        annotations = Annotations(np.array(labels, np.int64), tuple(features[label_column].names))
    else:
        annotations = _counted(identifier, label_column, splits, chosen, origin)
    if len(annotations.labels) and annotations.labels.min() < 0:
        raise origin.broken(
            f"hf:{identifier}", f"has {chosen} images without a class in column {label_column}"
        )
    pictures = rows.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False))
    files = tuple(Path(file["filename"]) for file in rows.cache_files)
    return HuggingFaceSource(pictures, image_column, f"hf:{identifier}", annotations, files, origin)


@dataclass(frozen=True)
class HuggingFaceSource:
    """One split; `rows[i][image_column]` holds the encoded picture's `bytes`, or the `path` of its file."""

    rows: Any
    image_column: str
    name: str
    annotations: Annotations
    files: tuple[Path, ...]
    origin: Origin

    def __len__(self) -> int:
        return len(self.rows)

    def picture(self, i: int) -> Image.Image:
        encoded = self.rows[i][self.image_column]
        if encoded is None:
            raise ValueError("the cell is empty")
        content = encoded["bytes"]
        with Image.open(encoded["path"] if content is None else io.BytesIO(content)) as picture:
            return opaque(picture)

    def broken(self, i: int, reason: object) -> DataError:
        return self.origin.broken(self.name, f"has a picture {i} that cannot be used: {reason}")

    def fingerprint(self) -> str:
        """Of the Arrow files, which `datasets` makes anew under another name when its data files change."""
        return file_fingerprint(self.files, self.origin) + self.image_column


def _load(datasets: Any, identifier: str, cache: Path | None, origin: Origin) -> Any:
    """A mapping from split names to rows."""
    try:
        if (Path(identifier) / "dataset_dict.json").is_file():
            return datasets.load_from_disk(identifier, keep_in_memory=False)
        cache_dir = None if cache is None else str(cache)
        return datasets.load_dataset(identifier, cache_dir=cache_dir, keep_in_memory=False)
    except Exception as error:  # `datasets` raises what its readers, the network and the hub raise
        raise origin.broken(f"hf:{identifier}", f"cannot be loaded: {error}") from error


def _column(identifier: str, features: Any, kind: type, named: list[str], origin: Origin) -> str | None:
    if not named:
        return next((column for column, feature in features.items() if isinstance(feature, kind)), None)
    if named[0] not in features:
        raise origin.broken(
            f"hf:{identifier}", f"has no column {named[0]!r}, its columns are {', '.join(features)}"
        )
    return named[0]


def _counted(identifier: str, column: str, splits: Any, chosen: str, origin: Origin) -> Annotations:
    """Classes of a column of texts or numbers: those of all splits together, so that all count the same."""
    texts: dict[str, list[str]] = {}
    for split, rows in splits.items():
        if column in rows.features:
            values = _known(f"hf:{identifier}", column, rows[column][:], origin)
            texts[split] = [str(value) for value in values]
    _, class_names = class_labels([text for split in texts.values() for text in split])
    index = {name: i for i, name in enumerate(class_names)}
    labels: npt.NDArray[np.int64] = np.array([index[text] for text in texts[chosen]], np.int64)
    return Annotations(labels, class_names)


def _known(name: str, column: str, values: Any, origin: Origin) -> list[Any]:
    found = list(values)
    wrong = next((i for i, value in enumerate(found) if not isinstance(value, str | int | bool)), None)
    if wrong is not None:
        raise origin.broken(
            name, f"has {found[wrong]!r:.80} in column {column}, row {wrong}, which is no class"
        )
    return found
