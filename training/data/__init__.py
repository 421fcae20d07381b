"""Data sets in their official on-disk formats, as uint8 arrays ready for the network."""

from training.data.dataset import UNKNOWN, DataError, Dataset
from training.data.fashion_mnist import (
    FASHION_MNIST_CLASSES,
    FASHION_MNIST_SHA256,
    download_fashion_mnist,
    load_fashion_mnist,
    read_idx,
)

__all__ = [
    "FASHION_MNIST_CLASSES",
    "UNKNOWN",
    "DataError",
    "Dataset",
    "download_fashion_mnist",
    "load_fashion_mnist",
    "read_idx",
]
