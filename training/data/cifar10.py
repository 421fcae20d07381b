"""CIFAR-10 in its official python or binary batches."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.data.dataset import Split
from training.data.source import Annotations, ArraySource, Origin

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAR10_ORIGIN = Origin(
    "https://www.cs.toronto.edu/~kriz/cifar.html (python or binary version, unpacked)",
    "a directory, or the one above it, cifar-10-batches-py with data_batch_1 to data_batch_5 and test_batch, "
    "or cifar-10-batches-bin with the same names ending in .bin",
)

_PIXEL_BYTES = 3 * 32 * 32
_BATCHES: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}


def cifar10_source(directory: Path, split: Split) -> ArraySource:
    """CIFAR-10 (Krizhevsky 2009): five training batches, one of test images. Raises DataError."""
    paths = _find(directory, split)
    read = _read_binary if paths[0].suffix == ".bin" else _read_python
    batches = [read(path) for path in paths]
    labels = np.concatenate([labels for _, labels in batches])
    rows = np.concatenate([rows for rows, _ in batches])  # (N, 3072): all red, all green, all blue
    images = np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return ArraySource(images, Annotations(labels, CIFAR10_CLASSES), paths, CIFAR10_ORIGIN)


def _find(directory: Path, split: Split) -> tuple[Path, ...]:
    """The python batches where there are any, else the binary ones."""
    for folder, suffix in (("cifar-10-batches-py", ""), ("cifar-10-batches-bin", ".bin")):
        for place in (directory / folder, directory):
            paths = tuple(place / f"{name}{suffix}" for name in _BATCHES[split])
            found = [path.is_file() for path in paths]
            if all(found):
                return paths
            if any(found):
                raise CIFAR10_ORIGIN.missing(paths[found.index(False)])
    raise CIFAR10_ORIGIN.missing(directory / "cifar-10-batches-py" / _BATCHES[split][0])


def _read_binary(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Rows of a label byte and 3072 pixel bytes."""
    content = _bytes(path)
    if not content or len(content) % (1 + _PIXEL_BYTES):
        raise CIFAR10_ORIGIN.broken(
            path, f"holds {len(content)} bytes, which is no number of rows of {1 + _PIXEL_BYTES} bytes"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + _PIXEL_BYTES)
    return rows[:, 1:], _labels(path, rows[:, 0].astype(np.int64))


def _read_python(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """A pickled dictionary with data (N, 3072) uint8 and a list of labels."""
    content = _bytes(path)
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
        # Keys are bytes in the official files, which Python 2 wrote.
        fields = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        if not isinstance(fields["data"], _PickledArray):
            raise TypeError(f"data is {type(fields['data']).__name__}, not an array")
        rows = fields["data"].values
        labels = np.array([int(label) for label in fields["labels"]], np.int64)
    except Exception as error:  # a damaged pickle raises nearly anything
        reason = f"lacks {error}" if isinstance(error, KeyError) else error
        raise CIFAR10_ORIGIN.broken(path, f"is not a CIFAR-10 python batch: {reason}") from error
    if rows.ndim != 2 or rows.shape != (len(labels), _PIXEL_BYTES):
        raise CIFAR10_ORIGIN.broken(
            path, f"has data {rows.shape} for {len(labels)} labels, expected ({len(labels)}, {_PIXEL_BYTES})"
        )
    return rows, _labels(path, labels)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CIFAR10_ORIGIN.broken(path, f"cannot be read: {error}") from error


def _labels(path: Path, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(CIFAR10_CLASSES):
        raise CIFAR10_ORIGIN.broken(
            path, f"has labels {labels.min()} to {labels.max()}, classes are 0 to {len(CIFAR10_CLASSES) - 1}"
        )
    return labels


class _BatchUnpickler(pickle.Unpickler):
    """Admits plain containers and a uint8 array, rebuilt by the stand-ins below and not by NumPy's code."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
            ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
            ("numpy", "ndarray"): "ndarray",
            ("numpy", "dtype"): _PickledDtype,
            ("_codecs", "encode"): _EncodedText,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no CIFAR-10 batch needs")
        return known[module, name]


class _PickledDtype:
    """numpy.dtype(code, align, copy)."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code.decode() if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which a uint8 does not have."""


class _PickledArray:
    """numpy.ndarray in the making: built empty, then given its state."""

    values: npt.NDArray[np.uint8]

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if dtype.code != "u1":
            raise pickle.UnpicklingError(f"its array has type {dtype.code}, expected u1")
        self.values = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


class _EncodedText:
    """_codecs.encode, by which Python 3 writes bytes in old pickles: calling it gives the bytes.

    A pickle may also try to set attributes of what it names; `__setstate__` is what it meets instead.
    """

    def __new__(cls, text: str, encoding: str) -> Any:
        if encoding not in ("latin1", b"latin1"):
            raise pickle.UnpicklingError(f"it encodes text as {encoding!r}, expected latin1")
        return text.encode("latin1")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it sets attributes of a function")
