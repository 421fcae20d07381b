"""`patronus edit`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from service.cli.edits import EDITS_HELP, EditType, PrototypeType
from service.cli.output import OutType, number, picture_paths, to_json, to_table
from service.cli.sampling import start_of
from service.cli.sources import ImageType, image_files
from service.cli.target import Target, with_target
from service.client import BadRequestError, Edit, Edited, calls
from service.client.calls import EditOptions

COLUMNS = ("file", "changed", "how", "before", "asked", "achieved", "written")


@click.command()
@click.argument("images", nargs=-1, required=True, type=ImageType())
@click.option("-e", "--edit", "edits", type=EditType(), multiple=True, required=True, help=EDITS_HELP)
@click.option("--extrapolate", is_flag=True, help="let edits leave the data's quantiles")
@click.option(
    "--preserve", type=PrototypeType(), multiple=True, help="a prototype to hold, or `others`; repeatable"
)
@click.option(
    "--preserve-attribute",
    "preserve_attributes",
    multiple=True,
    metavar="NAME",
    help="an attribute to hold (see `patronus prototypes --json`); repeatable",
)
@click.option("--start", default="full", show_default=True, help="full, auto, or a timestep to go back to")
@click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--inversion", type=click.Choice(["ddim", "bdia"]), default="ddim", show_default=True)
@click.option("--rounds", type=click.IntRange(1, 8), default=4, show_default=True, help="corrections at most")
@click.option("--model", help="which of the models (see `patronus models`)")
@click.option("--reconstruction", is_flag=True, help="write NAME.reconstruction.png too, the image unedited")
@click.option("--json", "as_json", is_flag=True, help="print the answers, pictures in base64")
@click.option(
    "-o",
    "--out",
    type=OutType("", ".png"),
    default=Path(),
    help="a folder for NAME.edited.png, or for one image a .png  [default: .]",
)
@with_target
def edit(
    target: Target,
    images: tuple[str, ...],
    edits: tuple[Edit, ...],
    start: str,
    preserve: tuple[int | str, ...],
    preserve_attributes: tuple[str, ...],
    reconstruction: bool,
    as_json: bool,
    out: Path,
    **options: Any,
) -> int:
    """Change prototypes or attributes in images and keep the rest.

    Where the model knows labels, the table also has attributes that changed along, by half a standard
    deviation or more; `asked` is what the request itself carries of them. --json has all attributes.

    \b
    patronus edit shirt.png -e 21=max
    patronus edit shirt.png -e @Bag=max
    patronus edit face.png -e @smile=max --preserve-attribute dark_skin
    patronus edit shirts/ -e 21=+0.5 -e 3=min --preserve others -o edited/
    """
    files = image_files(images)
    paths = picture_paths(files, out, "edited")
    chosen: EditOptions = {**options, "start": start_of(start)}  # type: ignore[typeddict-item]
    if preserve:
        chosen["preserve"] = "others" if preserve == ("others",) else list(preserve)
    if preserve_attributes:
        chosen["preserve_attributes"] = preserve_attributes
    answers, rows = [], []
    with target.open() as session:
        for file, written in zip(files, paths, strict=True):
            try:
                answer, edited = session.ask(calls.edit(file, edits, **chosen))
            except (BadRequestError, OSError) as error:
                click.echo(f"patronus: {file}: {error}", err=True)
                continue
            written.parent.mkdir(parents=True, exist_ok=True)
            edited.image.save(written)
            if reconstruction:
                name = written.name.removesuffix(".png").removesuffix(".edited")
                edited.reconstruction.save(written.with_name(f"{name}.reconstruction.png"))
            answers.append({"file": str(file), "written": str(written), **answer})
            rows += _rows(file, written, edited, edits)
    if as_json:
        click.echo(to_json({"images": answers}))
    elif rows:
        click.echo(to_table(COLUMNS, rows))
    return 0 if len(answers) == len(files) else 1


def _rows(file: Path, written: Path, edited: Edited, edits: tuple[Edit, ...]) -> list[list[object]]:
    """Of the attributes and prototypes that are edited, and of attributes that changed along."""

    def row(which: object, how: str, before: float, asked: float, achieved: float) -> list[object]:
        return [file, which, how, number(before), number(asked), number(achieved), written]

    s, others = edited.activations, edited.other_attributes or ()
    return [
        *(
            row(f"@{item.name}", "edited", item.before, item.asked, item.achieved)
            for item in edited.attributes
        ),
        *(
            row(j, "edited", s.before[j], s.asked[j], s.achieved[j])
            for j in _edited_prototypes(edited, edits)
        ),
        *(
            row(f"@{item.name}", "changed along", item.before, item.asked, item.achieved)
            for item in others
            if item.is_notable
        ),
    ]


def _edited_prototypes(edited: Edited, edits: tuple[Edit, ...]) -> list[int]:
    """Those that edits name; where a name stands for an index, all whose activation was asked to change."""
    indices = {edit.prototype for edit in edits if isinstance(edit.prototype, int)}
    if not any(isinstance(edit.prototype, str) for edit in edits):
        return sorted(indices)
    s = edited.activations
    return [j for j in range(len(s.asked)) if j in indices or s.asked[j] != s.before[j]]
