"""What commands give: JSON, CSV and tables on stdout or in a file, pictures in files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from model.transforms import Pixels
from service.client import Picture

Rows = Iterable[Sequence[object]]
Writer = Callable[[Path], None]


class OutType(click.Path):
    """Where to write: a file that ends in one of `kinds`, a folder where "" is one of them.

    Another ending is refused before anything is computed.
    """

    def __init__(self, *kinds: str) -> None:
        super().__init__(path_type=Path)
        self._kinds = kinds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        out: Path = super().convert(value, param, ctx)  # type: ignore[assignment]
        if kind_of(out) not in self._kinds:
            *others, last = (f"a {kind}" if kind else "a folder" for kind in self._kinds)
            self.fail(f"{out} must be {', '.join(others)} or {last}", param, ctx)
        return out


def kind_of(out: Path) -> str:
    """The suffix of a file, "" for a folder, which may be there already and have a dot in its name."""
    return "" if out.is_dir() else out.suffix.lower()


def to_json(value: Any) -> str:
    return json.dumps(value, indent=2)


def to_csv(header: Sequence[str], rows: Rows) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue().rstrip("\n")


def to_table(header: Sequence[str], rows: Rows) -> str:
    """Columns aligned for the eye: numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    lines = [list(header), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    are_numbers = [all(_is_number(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, are_numbers, strict=True)
        ).rstrip()
        for line in lines
    )


def write(out: Path, writers: dict[str, Writer]) -> None:
    """Write `out` as its kind says."""
    kind = kind_of(out)
    target = out if not kind else out.parent
    target.mkdir(parents=True, exist_ok=True)
    writers[kind](out)
    click.echo(f"wrote {out}", err=True)


def tell_answers(
    answers: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    out: Path | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """The end of a command that has drawn a picture of each image's answer, or else is to write a table.

    answers: each with the path `written`, where one was; rows: of the table.
    """
    is_table = out is not None and kind_of(out) in (".json", ".csv")
    if out is not None and is_table:
        writers = {
            ".json": text_writer(lambda: to_json({"images": answers})),
            ".csv": text_writer(lambda: to_csv(columns, rows)),
        }
        write(out, writers)
    elif out is not None and answers:
        click.echo(f"wrote {', '.join(answer['written'] for answer in answers)}", err=True)
    if as_json:
        click.echo(to_json({"images": answers}))
    elif as_csv:
        click.echo(to_csv(columns, rows))
    elif rows and not is_table:
        click.echo(to_table(columns, rows))


def picture_paths(files: Sequence[Path], out: Path, kind: str) -> list[Path]:
    """Where the picture made of each file goes: NAME.`kind`.png in the folder `out`, or `out`, a .png of one.

    Raises click.BadParameter for one name for several pictures.
    """
    if kind_of(out) == ".png":
        if len(files) > 1:
            raise click.BadParameter(
                f"{out} is one file for {len(files)} images: give a folder", param_hint="--out"
            )
        return [out] * len(files)
    paths = [out / f"{file.stem}.{kind}.png" for file in files]
    first: dict[Path, Path] = {}
    for file, path in zip(files, paths, strict=True):
        if (other := first.setdefault(path, file)) != file:
            raise click.BadParameter(
                f"{other} and {file} would both become {path}: give each a folder of its own, in two calls",
                param_hint="--out",
            )
    return paths


def text_writer(make: Callable[[], str]) -> Writer:
    def write_text(path: Path) -> None:
        path.write_text(make() + "\n", encoding="utf-8")

    return write_text


def png_writer(make: Callable[[], bytes]) -> Writer:
    def write_png(path: Path) -> None:
        path.write_bytes(make())

    return write_png


def pixels_of(picture: Picture) -> Pixels:
    """(C, H, W), as the service's own grids take it."""
    pixels = picture.to_numpy()
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def number(value: float | None) -> str:
    """For a table."""
    return "-" if value is None or np.isnan(value) else f"{value:z.3f}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == "-"
    return True
