"""Images on the command line: files, folders, and globs that the shell left alone."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

import click
from click.shell_completion import CompletionItem

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class ImageType(click.ParamType[str]):
    """What `image_files` takes; a shell completes files and folders."""

    name = "image"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        return [CompletionItem(incomplete, type="file")]


def image_files(given: Sequence[str]) -> list[Path]:
    """The files that are meant, in order, each once: of a folder all its pictures, sorted.

    Raises click.BadParameter for what is not there.
    """
    files: list[Path] = []
    for text in given:
        path = Path(text)
        if path.is_dir():
            found = sorted(
                file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and not file.is_dir()
            )
            reason = f"the folder {text} holds no {', '.join(SUFFIXES)}"
        elif path.exists():
            found, reason = [path], ""
        else:
            found = [Path(name) for name in sorted(glob.glob(text, recursive=True)) if Path(name).is_file()]
            reason = f"there is no file {text}"
        if not found:
            raise click.BadParameter(reason)
        files += found
    return list(dict.fromkeys(files))
