"""`patronus generate`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from service.cli.output import OutType, pixels_of, text_writer, to_json, write
from service.cli.sampling import sample_options, with_sampling
from service.cli.target import Target, with_target
from service.client import Generation, calls
from service.images import grid_png


@click.command()
@with_sampling
@click.option("--json", "as_json", is_flag=True, help="print the whole answer, pictures in base64")
@click.option(
    "-o",
    "--out",
    type=OutType(".png", ".json", ""),
    help="a .png (several images: a grid), a .json, or a folder for a .png each  [default: generated.png]",
)
@with_target
def generate(target: Target, as_json: bool, out: Path | None, **options: Any) -> None:
    """Sample images: from the latent prior, or under given activations, with edits.

    \b
    patronus generate -n 4 --seed 7
    patronus generate --image shirt.png -e 21=max --x-t inverted -o raised.png
    """
    call = calls.generate(**sample_options(**options))
    with target.open() as session:
        answer, generation = session.ask(call)
    if as_json:
        click.echo(to_json(answer))
    if out is not None or not as_json:
        writers = {
            ".png": lambda path: _write_grid(generation, path),
            ".json": text_writer(lambda: to_json(answer)),
            "": lambda path: _write_each(generation, path),
        }
        write(out or Path("generated.png"), writers)


def _write_grid(generation: Generation, path: Path) -> None:
    if len(generation.images) == 1:
        generation.images[0].image.save(path)
    else:
        path.write_bytes(grid_png([pixels_of(image.image) for image in generation.images]))


def _write_each(generation: Generation, folder: Path) -> None:
    for image in generation.images:
        image.image.save(folder / f"{image.seed}.png")
