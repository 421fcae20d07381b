from __future__ import annotations

import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.config import ImageConfig
from training.data import DataError, Dataset, load_dataset

IMAGE = ImageConfig(3, 32, 32)
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 12)


def as_python_2_wrote(rows: np.ndarray, labels: np.ndarray) -> bytes:
    """Protocol 2 with byte strings and NumPy 1's module names, as in the official files."""

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    content = rows.tobytes()
    return b"".join(
        [
            b"\x80\x02}(",
            short(b"batch_label") + short(b"training batch 1 of 5"),
            short(b"labels") + b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e",
            short(b"data"),
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + short(b"b") + b"\x87R",
            b"(K\x01" + b"M" + len(rows).to_bytes(2, "little") + b"M\x00\x0c\x86",
            b"cnumpy\ndtype\n" + short(b"u1") + b"K\x00K\x01\x87R",
            b"(K\x03" + short(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb",
            b"\x89T" + len(content).to_bytes(4, "little") + content + b"tb",
            short(b"filenames") + b"](" + short(b"camion_s_000148.png") + b"e",
            b"u.",
        ]
    )


def as_python_3_writes(rows: np.ndarray, labels: np.ndarray) -> bytes:
    batch = {b"data": rows, b"labels": labels.tolist(), b"batch_label": b"x", b"filenames": [b"a.png"]}
    return pickle.dumps(batch, protocol=2)


def as_binary(rows: np.ndarray, labels: np.ndarray) -> bytes:
    return np.concatenate([labels.astype(np.uint8)[:, None], rows], axis=1).tobytes()


FORMATS = {
    "python 2": ("cifar-10-batches-py", "", as_python_2_wrote),
    "python 3": ("cifar-10-batches-py", "", as_python_3_writes),
    "binary": ("cifar-10-batches-bin", ".bin", as_binary),
}


def write(root: Path, version: str) -> Path:
    """Five training batches of two images, a test batch of two; gives their folder."""
    folder, suffix, encode = FORMATS[version]
    directory = root / folder
    directory.mkdir()
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for i, name in enumerate(names):
        part = slice(2 * i, 2 * i + 2)
        (directory / f"{name}{suffix}").write_bytes(encode(PIXELS[part].reshape(2, -1), LABELS[part]))
    return directory


def load(directory: Path, split: Any = "train") -> Dataset:
    return load_dataset("cifar10", directory, split, IMAGE, cache=directory / "cache")


@pytest.mark.parametrize("version", FORMATS)
def test_both_splits_load(tmp_path: Path, version: str) -> None:
    write(tmp_path, version)
    train, test = load(tmp_path), load(tmp_path, "test")
    np.testing.assert_array_equal(train.pixels, PIXELS[:10])
    np.testing.assert_array_equal(train.labels, LABELS[:10])
    np.testing.assert_array_equal(test.pixels, PIXELS[10:])
    np.testing.assert_array_equal(test.labels, LABELS[10:])
    assert train.class_names[0] == "airplane"
    assert train.class_names[9] == "truck"


@pytest.mark.parametrize("version", FORMATS)
def test_the_batches_own_folder_may_be_named(tmp_path: Path, version: str) -> None:
    np.testing.assert_array_equal(load(write(tmp_path, version)).pixels, PIXELS[:10])


def test_the_handwritten_pickle_is_what_python_itself_reads() -> None:
    content = as_python_2_wrote(PIXELS[:2].reshape(2, -1), LABELS[:2]).replace(
        b"numpy.core.", b"numpy._core."
    )
    batch = pickle.loads(content, encoding="bytes")
    np.testing.assert_array_equal(batch[b"data"], PIXELS[:2].reshape(2, -1))
    assert batch[b"labels"] == LABELS[:2].tolist()


class Malice:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("function", [os.system, exec, eval])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path, function: Any) -> None:
    directory = write(tmp_path, "python 3")
    mark = tmp_path / "was-here"
    argument = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w').close()"
    malicious = {b"data": Malice(function, argument), b"labels": [0]}
    (directory / "data_batch_3").write_bytes(pickle.dumps(malicious, protocol=2))
    name = f"{'posix' if function is os.system else '(__builtin__|builtins)'}.{function.__name__}"
    with pytest.raises(DataError, match=f"data_batch_3 is not a CIFAR-10 python batch: it names {name}"):
        load(tmp_path)
    assert not mark.exists()


def test_numpy_s_own_loader_cannot_be_reached(tmp_path: Path) -> None:
    directory = write(tmp_path, "python 3")
    (directory / "data_batch_1").write_bytes(pickle.dumps({b"data": Malice(np.load, "x"), b"labels": []}))
    with pytest.raises(
        DataError, match=r"data_batch_1 .* it names numpy.*load, which no CIFAR-10 batch needs"
    ):
        load(tmp_path)


@pytest.mark.parametrize("named", ["_codecs\nencode", "numpy.core.multiarray\n_reconstruct", "numpy\ndtype"])
@pytest.mark.parametrize(
    "state", [{"__defaults__": ("latin1",)}, (None, {"__new__": 1}), (None, {"__setstate__": 1})]
)
def test_a_pickle_cannot_change_what_it_names(tmp_path: Path, named: str, state: Any) -> None:
    directory = write(tmp_path, "python 3")
    path = directory / "data_batch_1"
    good = path.read_bytes()
    build = pickle.dumps(state, protocol=2)[2:-1] + b"b"  # its opcodes without PROTO and STOP, then BUILD
    path.write_bytes(b"\x80\x02c" + named.encode() + b"\n" + build + b".")
    with pytest.raises(DataError, match="data_batch_1 is not a CIFAR-10 python batch"):
        load(tmp_path)
    path.write_bytes(good)
    load(tmp_path)


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    directory = write(tmp_path, "python 3")
    objects = np.array([["a"], ["b"]], dtype=object)
    content = pickle.dumps({b"data": objects, b"labels": [0, 1]}, protocol=2)
    (directory / "data_batch_1").write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_1 .* its array has type O8, expected u1"):
        load(tmp_path)


@pytest.mark.parametrize(
    "batch",
    [
        {b"labels": [0]},
        {b"data": np.zeros((1, 3072), np.uint8)},
        {b"data": [1, 2], b"labels": [0, 1]},
        {b"data": {}, b"labels": []},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]},
        {b"data": np.zeros((1, 3071), np.uint8), b"labels": [0]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": [-1]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": ["cat"]},
        [1, 2, 3],
    ],
)
def test_a_pickle_that_is_no_batch_is_named_with_remedy_and_layout(tmp_path: Path, batch: Any) -> None:
    directory = write(tmp_path, "python 3")
    (directory / "data_batch_2").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(DataError, match=r"data_batch_2 (is|has) .*get it from https.*expected layout"):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 100, 3000, -1])
def test_a_truncated_pickle_is_named(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path, "python 2") / "data_batch_4"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="data_batch_4 is not a CIFAR-10 python batch"):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0, -1])
def test_a_truncated_binary_batch_is_named(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path, "binary") / "data_batch_4.bin"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"data_batch_4.bin holds \d+ bytes, which is no number of rows"):
        load(tmp_path)


@pytest.mark.parametrize("version", FORMATS)
def test_a_missing_batch_is_named(tmp_path: Path, version: str) -> None:
    suffix = FORMATS[version][1]
    (write(tmp_path, version) / f"data_batch_5{suffix}").unlink()
    with pytest.raises(DataError, match=f"data_batch_5{suffix} is missing: get it from https"):
        load(tmp_path)


def test_an_empty_directory_is_told_the_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data_batch_1 is missing.*expected layout.*cifar-10-batches-bin"):
        load(tmp_path)


def test_cifar10_as_jpeg_folders_loads_as_a_folder(shared: Path, tmp_path: Path) -> None:
    archive = shared / "data" / "cifar10-jpeg" / "cifar10-jpeg.tar.gz"
    wanted = {
        f"{split}/{kind}/{i:04}.jpg": (split, kind)
        for split in ("train", "test")
        for kind in ("airplane",)
        for i in range(3)
    }
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name in wanted:
                tar.extract(member, tmp_path / "cifar", filter="data")
            elif member.name == "train/automobile/0000.jpg":
                tar.extract(member, tmp_path / "cifar", filter="data")
                break
    (tmp_path / "cifar" / "test").mkdir(exist_ok=True)
    dataset = load_dataset("folder", tmp_path / "cifar", "train", IMAGE, cache=tmp_path / "cache")
    assert dataset.pixels.shape == (4, 3, 32, 32)
    assert dataset.class_names == ("airplane", "automobile")
    assert dataset.labels.tolist() == [0, 0, 0, 1]
    assert dataset.pixels.std() > 10
