"""A split's pictures, decoded and resized once, then memory-mapped by every later run."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import json
import logging
import os
import re
import sys
import tempfile
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
from tqdm import tqdm

from model.config import ImageConfig
from model.transforms import Pixels, to_pixels
from training.data.dataset import DataError
from training.data.source import Source

if sys.platform != "win32":
    import fcntl

log = logging.getLogger(__name__)

CHUNK = 64
"""Pictures that a thread decodes in one go."""

CHECKSUM_BLOCK = 1 << 24
CHECKSUM_BYTES = 4


def cached_pixels(source: Source, image: ImageConfig, *, name: str, cache: Path | None = None) -> Pixels:
    """The pictures of `source` as pixels (N, C, H, W) uint8, mapped from a file in the directory `cache`.

    The file is made on first use. It is named by `name`, the shape, and a digest of the source's fingerprint
    and of `to_pixels`; it is a .npy file with a CRC-32 of its pixels at the end, which is checked at
    every opening: a file that was cut short or damaged is made again. Several processes may ask at once:
    one makes the file, under a lock where the file system has locks, and a file appears only when complete.

    The map is copy-on-write: what is written to the array stays in this process' memory. Files that are
    larger than the machine's memory are mapped read-only. Raises DataError.
    """
    if len(source) == 0:
        raise DataError(f"{name} holds no images")
    directory = cache if cache is not None else default_cache_directory()
    path = directory / _file_name(source, image, name)
    pixels = _open(path, len(source), image)
    if pixels is not None:
        return pixels
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(path) as alone:
            pixels = _open(path, len(source), image)  # another process may have made it meanwhile
            if pixels is not None:
                return pixels
            if alone:  # no other process is writing: what lies there was left by one that was killed
                for stale in directory.glob(f"{path.name}.*.partial"):
                    stale.unlink(missing_ok=True)
            _write(path, source, image, name)
    except OSError as error:
        size_mb = len(source) * int(np.prod(image.shape)) / 1e6
        raise DataError(
            f"{path} cannot be written ({size_mb:.0f} MB): {error}; name another cache directory"
        ) from error
    pixels = _open(path, len(source), image)
    if pixels is None:
        raise DataError(f"{path} does not hold what was written to it; name another cache directory")
    return pixels


def decoded_pixels(source: Source, image: ImageConfig, *, name: str) -> Pixels:
    """The same pixels (N, C, H, W) uint8 in memory, without a cache. Raises DataError."""
    pixels = np.empty((len(source), *image.shape), np.uint8)
    start = 0
    for chunk in _chunks(source, image, name):
        pixels[start : start + len(chunk)] = chunk
        start += len(chunk)
    return pixels


def default_cache_directory() -> Path:
    """$XDG_CACHE_HOME/patronus/datasets, with ~/.cache where that is not set."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative paths ignored.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "patronus" / "datasets"


def _file_name(source: Source, image: ImageConfig, name: str) -> str:
    what = [inspect.getsource(to_pixels), PIL.__version__, name, image.shape, source.fingerprint()]
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-80:]
    return f"{readable}-{'x'.join(map(str, image.shape))}-{digest}.npy"


def _open(path: Path, num_images: int, image: ImageConfig) -> Pixels | None:
    """The pixels in a complete and undamaged cache file, else None."""
    shape = (num_images, *image.shape)
    header = _header(shape)
    size = int(np.prod(shape, dtype=np.int64))
    try:
        with open(path, "rb") as file:
            if file.read(len(header)) != header:
                raise ValueError("its header is another")
            file.seek(len(header) + size)
            expected = file.read(CHECKSUM_BYTES + 1)
            if len(expected) != CHECKSUM_BYTES:
                raise ValueError("its size is wrong")
        pixels = _mapped(path, shape, offset=len(header))
        if _checksum(pixels) != expected:
            raise ValueError("its checksum is wrong")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s is made again: %s", path, error)
        return None
    return pixels


def _mapped(path: Path, shape: tuple[int, ...], *, offset: int) -> Pixels:
    try:
        mapped = np.memmap(path, np.uint8, mode="c", offset=offset, shape=shape)
    except OSError:  # the kernel promises private copies of no more than all of its memory
        mapped = np.memmap(path, np.uint8, mode="r", offset=offset, shape=shape)
    return np.asarray(mapped)


def _write(path: Path, source: Source, image: ImageConfig, name: str) -> None:
    descriptor, partial = tempfile.mkstemp(".partial", f"{path.name}.", path.parent)
    checksum = 0
    try:
        with open(descriptor, "wb") as file:
            file.write(_header((len(source), *image.shape)))
            for chunk in _chunks(source, image, name):
                checksum = zlib.crc32(chunk.data, checksum)
                file.write(chunk.data)
            file.write(checksum.to_bytes(CHECKSUM_BYTES, "little"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
    log.info("%s holds the %d images of %s", path, len(source), name)


def _header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


def _checksum(pixels: Pixels) -> bytes:
    flat = pixels.reshape(-1)
    checksum = 0
    for start in range(0, len(flat), CHECKSUM_BLOCK):
        checksum = zlib.crc32(flat[start : start + CHECKSUM_BLOCK].data, checksum)
    return checksum.to_bytes(CHECKSUM_BYTES, "little")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Only one process at a time is inside, for each path; False where the file system has no locks."""
    with open(path.with_suffix(".lock"), "ab") as file:
        alone = sys.platform != "win32"
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:  # some network file systems; two processes then do the work twice
                log.warning("%s cannot be locked: %s", path, error)
                alone = False
        yield alone


def _chunks(source: Source, image: ImageConfig, name: str) -> Iterator[Pixels]:
    """All pixels in order, CHUNK images at a time; Pillow decodes and resizes outside Python's lock."""
    starts = range(0, len(source), CHUNK)
    num_threads = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    waiting: deque[Future[Pixels]] = deque()
    executor = ThreadPoolExecutor(num_threads, thread_name_prefix="patronus-decode")
    progress = tqdm(total=len(source), desc=f"decode {name}", unit="image", leave=False)
    try:
        for start in starts:
            waiting.append(executor.submit(_chunk, source, image, start))
            if len(waiting) > 2 * num_threads:
                chunk = waiting.popleft().result()
                yield chunk
                progress.update(len(chunk))
        while waiting:
            chunk = waiting.popleft().result()
            yield chunk
            progress.update(len(chunk))
    finally:
        executor.shutdown(cancel_futures=True)
        progress.close()


def _chunk(source: Source, image: ImageConfig, start: int) -> Pixels:
    stop = min(start + CHUNK, len(source))
    pixels = np.empty((stop - start, *image.shape), np.uint8)
    for i in range(start, stop):
        try:
            pixels[i - start] = to_pixels(source.picture(i), image)
        except DataError:
            raise
        except Exception as error:  # Pillow's decoders raise nearly anything for a broken file
            raise source.broken(i, error) from error
    return pixels
