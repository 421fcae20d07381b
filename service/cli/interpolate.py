"""`patronus interpolate`"""

from __future__ import annotations

from pathlib import Path

import click

from service.cli.output import OutType, Writer, pixels_of, png_writer, text_writer, to_csv, to_json, write
from service.cli.target import Target, with_target
from service.client import Interpolation, calls
from service.client.calls import InterpolateOptions
from service.drawing import STRIP_SIDE, Card, strip, tile

IMAGE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("first", type=IMAGE)
@click.argument("second", type=IMAGE)
@click.option(
    "-n",
    "--num-images",
    type=click.IntRange(min=2),
    default=7,
    show_default=True,
    help="pictures, both ends among them",
)
@click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--model", help="which of the models (see `patronus models`)")
@click.option("--json", "as_json", is_flag=True, help="print the whole answer, pictures in base64")
@click.option(
    "--csv", "as_csv", is_flag=True, help="print CSV: a line for each picture, achieved activations"
)
@click.option(
    "-o",
    "--out",
    type=OutType(".png", "", ".json", ".csv"),
    help="a .png strip, a folder for a .png each, a .json or a .csv  [default: interpolated.png]",
)
@with_target
def interpolate(
    target: Target,
    first: Path,
    second: Path,
    num_images: int,
    steps: int,
    model: str | None,
    as_json: bool,
    as_csv: bool,
    out: Path | None,
) -> None:
    """Go from the image FIRST to SECOND, in activations and in noise.

    \b
    patronus interpolate shirt.png coat.png
    patronus interpolate shirt.png coat.png -n 12 --steps 50 -o between/
    """
    options: InterpolateOptions = {"num_images": num_images, "steps": steps}
    if model is not None:
        options["model"] = model
    with target.open() as session:
        answer, found = session.ask(calls.interpolate(first, second, **options))
    if as_json:
        click.echo(to_json(answer))
    elif as_csv:
        click.echo(_csv(found))
    if out is not None or not (as_json or as_csv):
        writers: dict[str, Writer] = {
            ".png": png_writer(lambda: _strip(found)),
            ".json": text_writer(lambda: to_json(answer)),
            ".csv": text_writer(lambda: _csv(found)),
            "": lambda path: _write_each(found, path),
        }
        write(out or Path("interpolated.png"), writers)


def _csv(found: Interpolation) -> str:
    header = ["weight", *(f"s_{j}" for j in range(len(found.images[0].achieved)))]
    return to_csv(
        header,
        (
            [image.weight, *(round(s, 6) for s in image.achieved.astype(float).tolist())]
            for image in found.images
        ),
    )


def _strip(found: Interpolation) -> bytes:
    return strip(
        [
            Card([f"weight {image.weight:.2f}"], [tile(pixels_of(image.image), STRIP_SIDE)])
            for image in found.images
        ]
    )


def _write_each(found: Interpolation, folder: Path) -> None:
    digits = max(3, len(str(len(found.images))))  # that tell neighbours apart
    for image in found.images:
        image.image.save(folder / f"{image.weight:.{digits}f}.png")
