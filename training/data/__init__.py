"""Data sets in their official on-disk formats, as uint8 arrays ready for the network."""

from training.data.catalogue import DATASETS, load_dataset
from training.data.dataset import UNKNOWN, DataError, Dataset, Split
from training.data.fashion_mnist import (
    FASHION_MNIST_CLASSES,
    FASHION_MNIST_SHA256,
    download_fashion_mnist,
    load_fashion_mnist,
)
from training.data.idx import read_idx
from training.data.pixel_cache import default_cache_directory

__all__ = [
    "DATASETS",
    "FASHION_MNIST_CLASSES",
    "FASHION_MNIST_SHA256",
    "UNKNOWN",
    "DataError",
    "Dataset",
    "Split",
    "default_cache_directory",
    "download_fashion_mnist",
    "load_dataset",
    "load_fashion_mnist",
    "read_idx",
]
