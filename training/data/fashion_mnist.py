"""Fashion-MNIST in its four official idx files."""

from __future__ import annotations

import gzip
import hashlib
import logging
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from model.config import ImageConfig
from model.transforms import to_pixels
from training.data.dataset import DataError, Dataset

log = logging.getLogger(__name__)

FASHION_MNIST_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}


def load_fashion_mnist(directory: Path, split: str, config: ImageConfig) -> Dataset:
    """Fashion-MNIST (Xiao et al. 2017) from its four official idx .gz files; split "train" or "test"."""
    prefix = {"train": "train", "test": "t10k"}[split]
    images = read_idx(directory / f"{prefix}-images-idx3-ubyte.gz")
    labels_path = directory / f"{prefix}-labels-idx1-ubyte.gz"
    labels = read_idx(labels_path)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"{directory}: {split} images {images.shape} and labels {labels.shape} do not belong together"
        )
    if len(labels) and labels.max() >= len(FASHION_MNIST_CLASSES):
        raise DataError(
            f"{labels_path} has a label {labels.max()}, classes are 0 to {len(FASHION_MNIST_CLASSES) - 1}"
        )
    pixels = np.empty((len(images), *config.shape), dtype=np.uint8)
    for i, image in enumerate(tqdm(images, desc=f"resize {split}", unit="image", leave=False)):
        pixels[i] = to_pixels(Image.fromarray(image), config)
    return Dataset(pixels, labels.astype(np.int64), FASHION_MNIST_CLASSES)


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """A gzipped idx file of unsigned bytes (LeCun's format: 0, 0, type 8, rank, sizes, data)."""
    try:
        with gzip.open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is missing: get it from {FASHION_MNIST_URL}{path.name} "
            "or let --download fetch it; the directory must hold the four official idx .gz files"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a complete gzip file: {error}") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is not an idx file of unsigned bytes (magic {content[:4].hex()})")
    rank = content[3]
    start = 4 + 4 * rank
    if len(content) < start:
        raise DataError(f"{path} ends inside its header of {start} bytes")
    shape = tuple(np.frombuffer(content[4:start], dtype=">u4").tolist())
    size = int(np.prod(shape, dtype=np.int64))
    if len(content) - start != size:
        raise DataError(f"{path} holds {len(content) - start} bytes where its header says {size}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def download_fashion_mnist(directory: Path) -> None:
    """Fetch the official files that `directory` lacks; every file is checked against its sha256."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, sha256 in FASHION_MNIST_SHA256.items():
        path = directory / name
        if path.exists():
            content = path.read_bytes()
        else:
            log.info("downloading %s", FASHION_MNIST_URL + name)
            try:
                with urllib.request.urlopen(FASHION_MNIST_URL + name, timeout=60) as response:
                    content = response.read()
            except (urllib.error.URLError, TimeoutError) as error:
                raise DataError(f"{FASHION_MNIST_URL}{name} cannot be fetched: {error}") from error
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise DataError(f"{path} has sha256 {found}, expected {sha256}")
        if not path.exists():
            partial = path.with_suffix(".partial")
            partial.write_bytes(content)
            partial.replace(path)
