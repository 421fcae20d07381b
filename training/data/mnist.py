"""MNIST in its four official idx files."""

from __future__ import annotations

from pathlib import Path

from training.data.dataset import Split
from training.data.idx import idx_source
from training.data.source import ArraySource, Origin

MNIST_CLASSES = tuple("0123456789")
MNIST_ORIGIN = Origin(
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "a directory with train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, "
    "t10k-labels-idx1-ubyte.gz, gzipped or unpacked",
)


def mnist_source(directory: Path, split: Split) -> ArraySource:
    """MNIST (LeCun et al. 1998). Raises DataError."""
    return idx_source(directory, split, MNIST_CLASSES, MNIST_ORIGIN)
