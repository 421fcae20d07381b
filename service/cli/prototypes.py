"""`patronus prototypes`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from service.cli.edits import PrototypeType
from service.cli.output import (
    OutType,
    Writer,
    number,
    pixels_of,
    png_writer,
    text_writer,
    to_csv,
    to_json,
    to_table,
    write,
)
from service.cli.progress import ProgressLine
from service.cli.target import Session, Target, with_target
from service.client import Call, Prototype, PrototypeDetails, calls
from service.client.calls import Common
from service.drawing import Card, montage, png, tile

COLUMNS = ("prototype", "name", "mean", "std", "q0.99", "emerges at", "in", "goes with", "auroc")
SIDE = 96

Naming = tuple[int | str, str | None]


class NamingType(click.ParamType[Naming]):
    """PROTOTYPE=NAME, or PROTOTYPE= for the bundle's own name."""

    name = "prototype=name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Naming:
        if isinstance(value, tuple):
            return value
        which, equals, name = str(value).partition("=")
        if not equals or not which:
            self.fail(f"{value!r} is not PROTOTYPE=NAME, such as 3=smile", param, ctx)
        return PrototypeType().convert(which, param, ctx), name or None


@click.command()
@click.argument("prototypes", nargs=-1, type=PrototypeType())
@click.option(
    "--name",
    "namings",
    type=NamingType(),
    multiple=True,
    help="name one, by index or the name it has: 3=smile; 3= gives it the bundle's own again; repeatable",
)
@click.option("--model", help="which of the models (see `patronus models`)")
@click.option("--json", "as_json", is_flag=True, help="print the whole answer, pictures in base64")
@click.option("--csv", "as_csv", is_flag=True, help="print CSV: a line for each prototype")
@click.option(
    "-o",
    "--out",
    type=OutType(".png", "", ".json", ".csv"),
    help="a .png of their training patches, a folder for prototype-J.png each, a .json or a .csv",
)
@with_target
def prototypes(
    target: Target,
    prototypes: tuple[int | str, ...],
    namings: tuple[Naming, ...],
    model: str | None,
    as_json: bool,
    as_csv: bool,
    out: Path | None,
) -> None:
    """List prototypes, or PROTOTYPES in all detail, and name them.

    mean, std and q0.99 (a quantile) are of the activation over the training data. A prototype emerges at the
    timestep (large is early) from which its activation stays beyond half of its change while an image is
    sampled: the median over generated images, and the share of them in which it changes at all. A name holds
    wherever a prototype is asked for or shown, at the service that keeps it.

    \b
    patronus prototypes
    patronus prototypes 3 21 --json
    patronus prototypes --name 3=smile --url http://127.0.0.1:8000
    """
    options: Common = {} if model is None else {"model": model}
    with target.open() as session:
        asked = [calls.rename(*naming, **options) for naming in namings]
        asked += [calls.prototype(j, **options) for j in prototypes]
        if asked:
            answer, found = _details(session, asked)
        else:
            answer, listed = session.send(calls.prototypes(**options))
            found = list(listed.prototypes)
    if out is not None:
        writers: dict[str, Writer] = {
            ".png": png_writer(lambda: _sheet(found)),
            ".json": text_writer(lambda: to_json(answer)),
            ".csv": text_writer(lambda: to_csv(COLUMNS, _rows(found))),
            "": lambda path: _write_each(found, path),
        }
        write(out, writers)
    if as_json:
        click.echo(to_json(answer))
    elif as_csv:
        click.echo(to_csv(COLUMNS, _rows(found)))
    elif out is None:
        click.echo(to_table(COLUMNS, _rows(found)))
        click.echo(
            "emerges at: the timestep (large is early) from which the activation stays beyond half of "
            "its change while an image is sampled, median over generated images; in: the share in which it "
            "changes",
            err=True,
        )


def _details(
    session: Session, asked: Sequence[Call[PrototypeDetails]]
) -> tuple[dict[str, Any], list[Prototype]]:
    answers, found = [], []
    with ProgressLine(quiet=session.quiet) as line:
        for call in asked:
            answer, details = session.send(call)
            answers.append(answer)
            found.append(details.prototype)
            line.show("prototypes", len(found), len(asked))
    return {"prototypes": answers}, found


def _rows(found: Sequence[Prototype]) -> list[list[object]]:
    rows: list[list[object]] = []
    for item in found:
        statistics = item.statistics
        best = item.attributes[0] if item.attributes else None
        rows.append(
            [
                item.index,
                item.name or "-",
                number(None if statistics is None else statistics.mean),
                number(None if statistics is None else statistics.std),
                number(None if statistics is None else statistics.quantiles.get("0.99")),
                "-" if item.emergence_timestep is None else item.emergence_timestep,
                "-" if item.emergence_share is None else f"{item.emergence_share:.0%}",
                "-" if best is None else f"{'' if best.sign > 0 else 'not '}{best.name}",
                number(None if best is None else best.auroc),
            ]
        )
    return rows


def _sheet(found: Sequence[Prototype]) -> bytes:
    cards = [
        Card([f"{item.index}  {item.name or ''}".rstrip()], [tile(pixels_of(item.picture), SIDE)])
        for item in found
        if item.picture is not None
    ]
    if not cards:
        raise click.BadParameter("the model keeps no pictures of prototypes", param_hint="--out")
    return png(montage(cards))


def _write_each(found: Sequence[Prototype], folder: Path) -> None:
    for item in found:
        if item.picture is not None:
            item.picture.save(folder / f"prototype-{item.index}.png")
