"""`patronus diagnose`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from service.cli.edits import EDITS_HELP, EditType, PrototypeType
from service.cli.output import OutType, kind_of, number, text_writer, to_csv, to_json, to_table, write
from service.cli.sources import ImageType, image_files
from service.cli.target import Target, with_target
from service.client import Diagnosis, Edit, calls
from service.client.calls import DiagnoseOptions
from service.client.results import Coupling

COLUMNS = (
    "prototype",
    "affected",
    "effect",
    "low",
    "high",
    "p",
    "leakage",
    "data_correlation",
    "overlap",
    "asked",
)


@click.command()
@click.option(
    "-p",
    "--prototype",
    "prototypes",
    type=PrototypeType(),
    multiple=True,
    help="repeatable  [default: all, without -a]",
)
@click.option(
    "-a", "--attribute", "attributes", multiple=True, help="a label that the model knows; repeatable"
)
@click.option(
    "-e", "--edit", "edits", type=EditType(), multiple=True, help=f"instead of -p and -a: {EDITS_HELP}"
)
@click.option("--extrapolate", is_flag=True, help="let edits leave the data's quantiles")
@click.option(
    "--image",
    "images",
    type=ImageType(),
    multiple=True,
    help="a file, folder or glob to change them in; repeatable",
)
@click.option("--num-samples", type=click.IntRange(min=6), help="that are generated instead  [default: 32]")
@click.option("--steps", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--num-couplings", type=click.IntRange(0, 1000), default=20, show_default=True)
@click.option("--model", help="which of the models (see `patronus models`)")
@click.option("--json", "as_json", is_flag=True, help="print the whole answer, pictures in base64")
@click.option(
    "-o",
    "--out",
    type=OutType(".html", ".json", ".csv"),
    help="a .html report with pictures, a .json or a .csv",
)
@with_target
def diagnose(
    target: Target,
    prototypes: tuple[int | str, ...],
    attributes: tuple[str, ...],
    edits: tuple[Edit, ...],
    extrapolate: bool,
    images: tuple[str, ...],
    num_samples: int | None,
    steps: int,
    seed: int,
    num_couplings: int,
    model: str | None,
    as_json: bool,
    out: Path | None,
) -> None:
    """Find unwanted couplings: what else changes when a prototype or an attribute is changed.

    In the table attributes have an @ before them, and what their own change asks of others is `asked`.

    \b
    patronus diagnose -p 3 -p 21
    patronus diagnose --attribute Bag
    patronus diagnose -p 21 --num-samples 64 -o report.html
    """
    if as_json and out is not None and kind_of(out) == ".html":
        raise click.UsageError("the .html report is an answer of its own: give --json or --out, not both")
    options: DiagnoseOptions = {"steps": steps, "seed": seed, "num_couplings": num_couplings}
    if extrapolate:
        options["extrapolate"] = True
    if prototypes:
        options["prototypes"] = prototypes
    if attributes:
        options["attributes"] = attributes
    if edits:
        options["edits"] = edits
    if images:
        options["images"] = image_files(images)
    if num_samples is not None:
        options["num_samples"] = num_samples
    if model is not None:
        options["model"] = model
    with target.open() as session:
        if out is not None and kind_of(out) == ".html":
            page = session.client.diagnosis_page(**options)
            write(out, {".html": text_writer(lambda: page)})
            return
        answer, found = session.ask(calls.diagnose(**options))
    if as_json:
        click.echo(to_json(answer))
    elif out is None:
        click.echo(to_table(COLUMNS, _rows(found)))
        click.echo(
            f"{found.num_established} of {found.num_pairs} pairs are no chance; {found.num_leaking} of them "
            f"move by a tenth or more of what was changed itself",
            err=True,
        )
        if found.attributes is not None:
            click.echo(f"{found.attributes.num_established} effects on attributes are no chance", err=True)
    if out is not None:
        rows = _rows(found)
        writers = {
            ".json": text_writer(lambda: to_json(answer)),
            ".csv": text_writer(lambda: to_csv(COLUMNS, rows)),
        }
        write(out, writers)


def _rows(found: Diagnosis) -> list[list[object]]:
    """Couplings of prototypes; where attributes are changed, first what that does to other attributes."""
    rows = _couplings(found.couplings, "")
    if found.attributes is None or all(item.attribute is None for item in found.interventions):
        return rows
    return _couplings(found.attributes.couplings, "@") + rows


def _couplings(couplings: Sequence[Coupling], mark: str) -> list[list[object]]:
    """mark: what stands before the names of what is affected."""
    return [
        [
            coupling.name or coupling.prototype if coupling.attribute is None else f"@{coupling.attribute}",
            f"{mark}{coupling.affected_name or coupling.affected}",
            number(coupling.effect),
            number(coupling.low),
            number(coupling.high),
            number(coupling.p),
            number(coupling.leakage),
            number(coupling.data_correlation),
            number(coupling.overlap),
            number(coupling.asked),
        ]
        for coupling in couplings
    ]
