"""The data sets by name, and the one call that gives any of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from model.config import ImageConfig
from training.data.cartoon_faces import CARTOON_FACES, cartoon_faces_source, is_cartoon_faces
from training.data.celeba import celeba_source
from training.data.chexpert import chexpert_source
from training.data.cifar10 import cifar10_source
from training.data.dataset import DataError, Dataset, Split
from training.data.fashion_mnist import download_fashion_mnist, fashion_mnist_source
from training.data.ffhq import ffhq_source
from training.data.hugging_face import hugging_face_source
from training.data.image_folder import image_folder_source
from training.data.mnist import mnist_source
from training.data.pixel_cache import cached_pixels
from training.data.source import Source

_SOURCES: dict[str, Callable[[Path, Split], Source]] = {
    "fashion-mnist": fashion_mnist_source,
    "mnist": mnist_source,
    "cifar10": cifar10_source,
    "celeba": celeba_source,
    "ffhq": ffhq_source,
    "chexpert": chexpert_source,
    "folder": image_folder_source,
}

DATASETS = tuple(_SOURCES)
"""Those read from a directory. Beside these, `cartoon-faces[:<coupling>[+<coupling>…]]` names drawn faces,
and `hf:<id or local path>[:<image column>[:<label column>]]` a Hugging Face data set."""

HUGGING_FACE_PREFIX = "hf:"


def load_dataset(
    name: str,
    directory: Path | None,
    split: Split,
    image: ImageConfig,
    *,
    cache: Path | None = None,
    download: bool = False,
) -> Dataset:
    """One split of the data set `name`, its pixels as `image` says, memory-mapped.

    `directory` holds the official files; for a Hugging Face data set it may be None, or where `datasets`
    shall keep its own files; cartoon faces have none. `cache` is the directory of the decoded pixels
    (default: see `default_cache_directory`). `download` fetches what is missing first, for fashion-mnist
    only.
    Raises DataError.
    """
    if split not in ("train", "test"):
        raise DataError(f"split must be train or test, not {split!r}")
    source = _source(name, directory, split, image, download=download)
    pixels = cached_pixels(source, image, name=f"{name}-{split}", cache=cache)
    known = source.annotations
    return Dataset(pixels, known.labels, known.class_names, known.attributes, known.attribute_names)


def _source(name: str, directory: Path | None, split: Split, image: ImageConfig, *, download: bool) -> Source:
    if is_cartoon_faces(name):
        if directory is not None or download:
            raise DataError(f"{CARTOON_FACES} are drawn, not read: leave out the directory and the download")
        return cartoon_faces_source(name, split, image)
    if download and name != "fashion-mnist":
        raise DataError(
            f"{name} cannot be downloaded, only fashion-mnist can: get its files, and leave that out"
        )
    if name.startswith(HUGGING_FACE_PREFIX):
        return hugging_face_source(name.removeprefix(HUGGING_FACE_PREFIX), split, cache=directory)
    if name not in _SOURCES:
        raise DataError(
            f"data set must be {', '.join((*DATASETS, CARTOON_FACES))} or hf:<data set id>, not {name!r}"
        )
    if directory is None:
        raise DataError(f"{name} needs a directory with its files")
    if download:
        download_fashion_mnist(directory)
    return _SOURCES[name](directory, split)
