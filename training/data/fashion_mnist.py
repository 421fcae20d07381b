"""Fashion-MNIST in its four official idx files."""

from __future__ import annotations

import hashlib
import logging
import urllib.error
import urllib.request
from pathlib import Path

from model.config import ImageConfig
from training.data.dataset import DataError, Dataset, Split
from training.data.idx import idx_source
from training.data.pixel_cache import decoded_pixels
from training.data.source import ArraySource, Origin

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


FASHION_MNIST_ORIGIN = Origin(
    f"{FASHION_MNIST_URL} or let --download fetch it",
    f"a directory with {', '.join(FASHION_MNIST_SHA256)}, gzipped or unpacked",
)


def load_fashion_mnist(directory: Path, split: Split, config: ImageConfig) -> Dataset:
    """Fashion-MNIST in memory, decoded anew at each call; `load_dataset` keeps it in a cache."""
    source = fashion_mnist_source(directory, split)
    pixels = decoded_pixels(source, config, name=f"fashion-mnist {split}")
    return Dataset(pixels, source.annotations.labels, source.annotations.class_names)


def fashion_mnist_source(directory: Path, split: Split) -> ArraySource:
    """Fashion-MNIST (Xiao et al. 2017) from its four official idx files. Raises DataError."""
    return idx_source(directory, split, FASHION_MNIST_CLASSES, FASHION_MNIST_ORIGIN)


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
