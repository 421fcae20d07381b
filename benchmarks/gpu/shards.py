"""A file or a directory in parts that a narrow way lets through, and together again.

    python -m benchmarks.gpu.shards split SOURCE DIRECTORY [--max-mib 15]
    python -m benchmarks.gpu.shards join DIRECTORY TARGET

Parts are DIRECTORY/part-000, part-001, …; shards.json beside them has the SHA-256 of each and of the whole.
`join` takes nothing that differs from them. A directory travels as a tar archive of its plain files.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

INDEX = "shards.json"
FORMAT = 1
MIB = 2**20
DEFAULT_MIB = 15
"""Below 16, so that nobody has to ask whether a limit of 16 includes 16."""


class ShardsError(Exception):
    """Parts are missing, damaged, or do not make the whole; the message says which."""


def split(source: Path, directory: Path, *, max_bytes: int = DEFAULT_MIB * MIB) -> list[Path]:
    """Write a file or directory as parts of at most `max_bytes`; gives their paths, the index last.

    Older parts in `directory` are removed. Raises ShardsError where there is no such source.
    """
    if max_bytes < 1:
        raise ShardsError(f"a part must have at least one byte, not {max_bytes}")
    if not source.exists():
        raise ShardsError(f"{source} does not exist")
    directory.mkdir(parents=True, exist_ok=True)
    for path in (*directory.glob("part-*"), directory / INDEX):
        path.unlink(missing_ok=True)
    whole, entries, paths = hashlib.sha256(), [], []
    for number, part in enumerate(_parts(source, max_bytes)):
        path = directory / f"part-{number:03d}"
        path.write_bytes(part)
        whole.update(part)
        entries.append({"name": path.name, "bytes": len(part), "sha256": hashlib.sha256(part).hexdigest()})
        paths.append(path)
    index = {
        "format": FORMAT,
        "name": source.resolve().name,
        "is_directory": source.is_dir(),
        "bytes": sum(entry["bytes"] for entry in entries),  # type: ignore[misc]
        "sha256": whole.hexdigest(),
        "parts": entries,
    }
    (directory / INDEX).write_text(json.dumps(index, indent=1) + "\n")
    return [*paths, directory / INDEX]


def join(directory: Path, target: Path) -> None:
    """Make `target`, a file or a directory that does not exist yet, from its parts. Raises ShardsError.

    Everything is verified before anything appears at `target`.
    """
    index = _read_index(directory)
    if target.exists():
        raise ShardsError(f"{target} exists: name another target, nothing is overwritten")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    whole = hashlib.sha256()
    try:
        with partial.open("wb") as file:
            for entry in index["parts"]:
                part = _read_part(directory, entry)
                whole.update(part)
                file.write(part)
        if whole.hexdigest() != index["sha256"]:
            raise ShardsError(f"the parts in {directory} are whole, but do not make the whole")
        if index["is_directory"]:
            _unpack(partial, target)
        else:
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _parts(source: Path, max_bytes: int) -> Iterator[bytes]:
    """The source's bytes in pieces of `max_bytes`, the last one shorter; one empty part of an empty file."""
    with _opened(source) as file:
        part = file.read(max_bytes)
        yield part
        while part := file.read(max_bytes):
            yield part


def _opened(source: Path) -> IO[bytes]:
    if not source.is_dir():
        return source.open("rb")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(source.rglob("*")):
            if path.is_file() and not path.is_symlink():
                archive.add(path, arcname=path.relative_to(source).as_posix(), recursive=False)
    buffer.seek(0)
    return buffer


def _unpack(archive_path: Path, target: Path) -> None:
    """Extract plain files below `target`, which appears only when all are there."""
    unpacked = target.with_name(target.name + ".unpacked")
    unpacked.mkdir()
    with tarfile.open(archive_path) as archive:
        archive.extractall(unpacked, filter="data")
    unpacked.rename(target)


def _read_index(directory: Path) -> dict[str, Any]:
    path = directory / INDEX
    try:
        index: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ShardsError(f"{path} is missing: it lists the parts") from error
    except ValueError as error:
        raise ShardsError(f"{path} is no JSON: {error}") from error
    if index.get("format") != FORMAT:
        raise ShardsError(f"{path} has format {index.get('format')!r}, this program reads {FORMAT}")
    return index


def _read_part(directory: Path, entry: dict[str, Any]) -> bytes:
    path = directory / Path(str(entry["name"])).name  # of this directory, whatever the index says
    try:
        part = path.read_bytes()
    except OSError as error:
        raise ShardsError(f"{path} cannot be read: {error}") from error
    if len(part) != entry["bytes"] or hashlib.sha256(part).hexdigest() != entry["sha256"]:
        raise ShardsError(f"{path} is damaged: its SHA-256 is not the one in {INDEX}")
    return part


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True, dest="command")
    splitting = commands.add_parser("split", help="a file or directory into parts")
    splitting.add_argument("source", type=Path)
    splitting.add_argument("directory", type=Path)
    splitting.add_argument("--max-mib", type=int, default=DEFAULT_MIB, help=f"default: {DEFAULT_MIB}")
    joining = commands.add_parser("join", help="parts into what they were")
    joining.add_argument("directory", type=Path)
    joining.add_argument("target", type=Path)
    options = parser.parse_args(arguments)
    try:
        if options.command == "split":
            paths = split(options.source, options.directory, max_bytes=options.max_mib * MIB)
            print(f"{len(paths) - 1} parts and {INDEX} in {options.directory}")
        else:
            join(options.directory, options.target)
            print(options.target)
    except ShardsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
