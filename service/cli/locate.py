"""`patronus locate`"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from service.cli.edits import PrototypeType
from service.cli.output import OutType, kind_of, number, picture_paths, tell_answers
from service.cli.progress import ProgressLine
from service.cli.sources import ImageType, image_files
from service.cli.target import Target, with_target
from service.client import BadRequestError, Locations, calls
from service.client.calls import LocateOptions
from service.drawing import Card, montage, png

COLUMNS = ("file", "prototype", "name", "s", "z", "box", "centre")


@click.command()
@click.argument("images", nargs=-1, required=True, type=ImageType())
@click.option(
    "-p",
    "--prototype",
    "prototypes",
    type=PrototypeType(),
    multiple=True,
    help="index or name; repeatable  [default: the 8 most unusual in each image]",
)
@click.option("--maps", is_flag=True, help="add each prototype's similarity at every pixel to the JSON")
@click.option("--model", help="which of the models (see `patronus models`)")
@click.option("--json", "as_json", is_flag=True, help="print the answers, pictures in base64")
@click.option("--csv", "as_csv", is_flag=True, help="print CSV: a line for each image and prototype")
@click.option(
    "-o",
    "--out",
    type=OutType("", ".png", ".json", ".csv"),
    help="a folder for NAME.located.png (heat maps with boxes), for one image a .png; or a .json or .csv",
)
@with_target
def locate(
    target: Target,
    images: tuple[str, ...],
    prototypes: tuple[int | str, ...],
    maps: bool,
    model: str | None,
    as_json: bool,
    as_csv: bool,
    out: Path | None,
) -> int:
    """Say and show where prototypes are in images.

    IMAGES are files, folders and quoted globs. z is how unusual an activation is over the training data, in
    standard deviations; boxes are pixels of the picture as the model sees it.

    \b
    patronus locate shirt.png
    patronus locate shirts/ -p 3 -p 21 -o located/
    """
    files = image_files(images)
    draws = out is not None and kind_of(out) in ("", ".png")
    paths = picture_paths(files, out, "located") if out is not None and draws else []
    options: LocateOptions = {}
    if prototypes:
        options["prototypes"] = prototypes
    if maps:
        options["maps"] = True
    if model is not None:
        options["model"] = model
    answers: list[dict[str, Any]] = []
    rows: list[Sequence[object]] = []
    with target.open() as session, ProgressLine(quiet=session.quiet) as line:
        for i, file in enumerate(files):
            try:
                answer, found = session.send(calls.locate(file, **options))
            except (BadRequestError, OSError) as error:
                click.echo(f"patronus: {file}: {error}", err=True)
                continue
            answers.append({"file": str(file), **answer})
            rows += _rows(file, found)
            if draws:
                paths[i].parent.mkdir(parents=True, exist_ok=True)
                paths[i].write_bytes(_picture(found))
                answers[-1]["written"] = str(paths[i])
            line.show("locate", i + 1, len(files))
    tell_answers(answers, COLUMNS, rows, out=out, as_json=as_json, as_csv=as_csv)
    return 0 if len(answers) == len(files) else 1


def _rows(file: Path, found: Locations) -> Iterator[Sequence[object]]:
    for item in found.prototypes:
        box, centre = (",".join(map(str, part)) for part in (item.box, item.centre))
        yield file, item.prototype, item.name or "-", number(item.activation), number(item.z), box, centre


def _picture(found: Locations) -> bytes:
    cards = []
    for item in found.prototypes:
        unusual = "" if item.z is None else f"   z {item.z:+.1f}"
        lines = [f"{item.prototype}  {item.name or ''}".rstrip(), f"s {item.activation:.2f}{unusual}"]
        cards.append(Card(lines, [item.overlay.to_pil()]))
    return png(montage(cards))
