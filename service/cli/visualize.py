"""`patronus visualize`"""

from __future__ import annotations

from pathlib import Path

import click

from service.cli.edits import PrototypeType
from service.cli.output import number, to_json, to_table
from service.cli.sources import ImageType, image_files
from service.cli.target import Target, with_target
from service.client import calls
from service.client.calls import VisualizeOptions


@click.command()
@click.argument("prototypes", nargs=-1, required=True, type=PrototypeType())
@click.option(
    "--image",
    "images",
    type=ImageType(),
    multiple=True,
    help="a file, folder or glob to enhance it in; repeatable",
)
@click.option("--num-samples", type=click.IntRange(min=1), help="of the bundle's own pictures  [default: 20]")
@click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--model", help="which of the models (see `patronus models`)")
@click.option("--json", "as_json", is_flag=True, help="print the whole answer, pictures in base64")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="a folder for prototype-J.png, .source.png and .patch.png  [default: prototypes]",
)
@with_target
def visualize(
    target: Target,
    prototypes: tuple[int | str, ...],
    images: tuple[str, ...],
    num_samples: int | None,
    steps: int,
    seed: int,
    model: str | None,
    as_json: bool,
    out: Path | None,
) -> None:
    """Show what PROTOTYPES stand for: each enhanced in several images, and the one in which it rose most.

    \b
    patronus visualize 3 21
    patronus visualize 21 --image shirts/ -o shown/
    """
    options: VisualizeOptions = {"steps": steps, "seed": seed}
    if images:
        options["images"] = image_files(images)
    if num_samples is not None:
        options["num_samples"] = num_samples
    if model is not None:
        options["model"] = model
    with target.open() as session:
        answer, found = session.ask(calls.visualize(*prototypes, **options))
    if as_json:
        click.echo(to_json(answer))
    else:
        rows = [
            [
                shown.prototype,
                shown.name or "-",
                number(shown.activation_before),
                number(shown.activation_after),
                f"{shown.raised or 'none'} of {shown.num_sources}",
            ]
            for shown in found.prototypes
        ]
        click.echo(to_table(["prototype", "name", "before", "after", "rose in"], rows))
    if out is not None or not as_json:
        folder = out or Path("prototypes")
        folder.mkdir(parents=True, exist_ok=True)
        for shown in found.prototypes:
            shown.enhanced.save(folder / f"prototype-{shown.prototype}.png")
            shown.source.save(folder / f"prototype-{shown.prototype}.source.png")
            shown.patch.save(folder / f"prototype-{shown.prototype}.patch.png")
        click.echo(f"wrote {len(found.prototypes) * 3} pictures into {folder}", err=True)
