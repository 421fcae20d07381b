"""What people call a model's prototypes: names that are kept beside the bundle, which stays as it is."""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from model.bundle import Bundle
from service.pipeline.errors import InvalidNameError, NamesFileError, NameTakenError

try:
    import fcntl
except ImportError:  # not a Unix: there, two processes that rename at once may lose one of the names
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

MAX_NAME_LENGTH = 100
LOCK_TIMEOUT_S = 2.0
"""A file is written in milliseconds; who waits longer waits for somebody that is stuck."""

_NUMBER = re.compile(r"\s*[+-]?\d+\s*")
_Signature = tuple[int, int, int] | str | None


class PrototypeNames:
    """The names given to one bundle's prototypes, in a file that processes of one machine may share.

    `file` is None where no names are kept: then the bundle's own are the only ones. For one event loop, but
    `rename` is for another thread.
    """

    def __init__(self, bundle: Bundle, file: Path | None) -> None:
        self._original = bundle
        self._file = file
        self._seen: _Signature = None
        self._bundle = bundle

    def bundle(self) -> Bundle:
        """The bundle with the names of now; the file is read where it has changed since the last call.

        A file that cannot be read is logged, and stands for no names.
        """
        signature = self._signature()
        if signature != self._seen:
            self._seen = signature
            try:
                self._bundle = self._with(self._read())
            except NamesFileError as error:
                log.error("%s is left alone, its names are not used: %s", self._file, error)
                self._bundle = self._original
        return self._bundle

    def rename(self, j: int, name: str | None) -> None:
        """Call prototype `j` by `name` from the next `bundle()` on, over restarts; None: as the bundle does.

        Raises InvalidNameError, NameTakenError, and NamesFileError where it cannot be kept.
        """
        if name is not None:
            check_name(name)
        if self._file is None:
            raise NamesFileError("this service keeps no names")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with _lock(self._file.with_suffix(".lock")):
                given = self._read()
                given.pop(j, None)
                if name is not None:
                    given[j] = name
                names = [prototype.name for prototype in self._with(given).prototypes]
                for k, taken in enumerate(names):
                    if k != j and taken is not None and taken == names[j]:
                        raise NameTakenError(f"prototype {k} is named {taken!r} already")
                _write(self._file, {"names": {str(k): given[k] for k in sorted(given)}})
        except OSError as error:
            log.error("a name cannot be kept in %s: %s", self._file, error)
            raise NamesFileError("the name cannot be kept: the service's state cannot be written") from error
        except NamesFileError as error:
            log.error("a name cannot be kept in %s: %s", self._file, error)
            raise

    def _with(self, given: Mapping[int, str]) -> Bundle:
        prototypes = tuple(
            replace(prototype, name=given[j]) if j in given else prototype
            for j, prototype in enumerate(self._original.prototypes)
        )
        return replace(self._original, prototypes=prototypes) if given else self._original

    def _signature(self) -> _Signature:
        """What differs after every change of the file; None without a file."""
        if self._file is None:
            return None
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            return str(error)
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _read(self) -> dict[int, str]:
        """Names by prototype. Raises NamesFileError for a file that `rename` would not have written."""
        assert self._file is not None  # where there is none, there is no change to read
        try:
            names = json.loads(self._file.read_bytes())["names"]
            given = {int(j): name for j, name in names.items()}
            for name in given.values():
                check_name(name)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise NamesFileError("the file of names is damaged or cannot be read") from error
        if not all(0 <= j < len(self._original.prototypes) for j in given):
            raise NamesFileError("the file of names names prototypes that this model does not have")
        return given


def check_name(name: str) -> None:
    """Raises InvalidNameError for what cannot be told from an index, seen, or written into an address."""
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable() or name != name.strip():
        raise InvalidNameError(
            f"a name must have 1 to {MAX_NAME_LENGTH} printable characters, and no blanks around them"
        )
    if _NUMBER.fullmatch(name):
        raise InvalidNameError(f"a name must not be a number, which would be an index: {name[:30]!r}")
    if "/" in name or name in (".", ".."):
        raise InvalidNameError("a name must not be . or .. or have a /, or no address would lead to it")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Have `path` to ourselves among all threads and processes of this machine. Raises OSError."""
    with path.open("w") as file:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        yield


def _write(path: Path, content: object) -> None:
    """A JSON file, whole or not at all, also when the machine goes down meanwhile. Raises OSError."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
