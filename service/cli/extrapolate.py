"""`patronus extrapolate`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from service.cli.edits import PrototypeType, finite
from service.cli.output import OutType, kind_of, number, picture_paths, pixels_of, tell_answers
from service.cli.sources import ImageType, image_files
from service.cli.target import Target, with_target
from service.client import BadRequestError, Extrapolation, calls
from service.client.calls import ExtrapolateOptions
from service.drawing import STRIP_SIDE, Card, strip, tile

COLUMNS = ("file", "prototype", "asked", "achieved", "beyond the data")


class NumbersType(click.ParamType[tuple[float, ...]]):
    """Numbers with commas between them."""

    name = "a,b,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(finite(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not numbers with commas between them, such as 0,1.5,3", param, ctx)


@click.command()
@click.argument("prototype", type=PrototypeType())
@click.argument("images", nargs=-1, type=ImageType())
@click.option("--values", type=NumbersType(), help="activations to give it  [default: 7 from 0 to 3]")
@click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="of the sample, no image"
)
@click.option("--model", help="which of the models (see `patronus models`)")
@click.option("--json", "as_json", is_flag=True, help="print the answers, pictures in base64")
@click.option("--csv", "as_csv", is_flag=True, help="print CSV: a line for each picture")
@click.option(
    "-o",
    "--out",
    type=OutType("", ".png", ".json", ".csv"),
    default=Path(),
    help="a folder for the strips NAME.extrapolated.png, for one image a .png; or a .json or .csv  "
    "[default: .]",
)
@with_target
def extrapolate(
    target: Target,
    prototype: int | str,
    images: tuple[str, ...],
    values: tuple[float, ...] | None,
    steps: int,
    seed: int,
    model: str | None,
    as_json: bool,
    as_csv: bool,
    out: Path,
) -> int:
    """Sweep PROTOTYPE over values, in IMAGES or in a sample, and keep all else.

    \b
    patronus extrapolate 21 shirt.png
    patronus extrapolate 21 shirts/ --values 0,1,2,4 -o swept/
    patronus extrapolate 21 --seed 7 -o sweep.png
    """
    files = image_files(images)
    draws = kind_of(out) in ("", ".png")
    paths = picture_paths(files or [Path(f"seed-{seed}")], out, "extrapolated") if draws else []
    options: ExtrapolateOptions = {"steps": steps, "seed": seed}
    if values is not None:
        options["values"] = values
    if model is not None:
        options["model"] = model
    answers: list[dict[str, Any]] = []
    rows: list[Sequence[object]] = []
    with target.open() as session:
        for i, file in enumerate(files or [None]):
            chosen: ExtrapolateOptions = options if file is None else {**options, "image": file}
            try:
                answer, found = session.ask(calls.extrapolate(prototype, **chosen))
            except (BadRequestError, OSError) as error:
                if file is None:
                    raise
                click.echo(f"patronus: {file}: {error}", err=True)
                continue
            answers.append({"file": None if file is None else str(file), **answer})
            rows += _rows(file, found)
            if draws:
                paths[i].parent.mkdir(parents=True, exist_ok=True)
                paths[i].write_bytes(_strip(found))
                answers[-1]["written"] = str(paths[i])
    tell_answers(answers, COLUMNS, rows, out=out, as_json=as_json, as_csv=as_csv)
    return 0 if len(answers) == (len(files) or 1) else 1


def _rows(file: Path | None, found: Extrapolation) -> list[Sequence[object]]:
    name = found.name or found.prototype
    outside = {True: "yes", False: "no", None: "-"}
    return [
        (file or "-", name, number(image.asked), number(image.achieved), outside[image.is_outside])
        for image in found.images
    ]


def _strip(found: Extrapolation) -> bytes:
    cards = [
        Card(
            (f"asked {image.asked:.2f}{' *' if image.is_outside else ''}", f"achieved {image.achieved:.2f}"),
            [tile(pixels_of(image.image), STRIP_SIDE)],
        )
        for image in found.images
    ]
    title = f"prototype {found.prototype}  {found.name or ''}".rstrip()
    if any(image.is_outside for image in found.images):
        title += f"   * outside of the data's {found.low:.2f} to {found.high:.2f}"
    return strip(cards, title=title)
