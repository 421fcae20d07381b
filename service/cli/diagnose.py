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
from service.client.results import Coupling, Intervention

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
    "beyond",
    "finding",
    "seen_beside",
)
"""Of the CSV."""
TABLE = {
    "prototype": "changed",
    "affected": "affected",
    "effect": "effect",
    "low": "low",
    "high": "high",
    "asked": "asked",
    "beyond": "beyond",
    "leakage": "leakage",
    "p": "p",
    "finding": "finding",
    "data_correlation": "r in data",
    "overlap": "overlap",
    "seen_beside": "seen beside",
}
"""Of the table: columns in its order, and what is above them; those without any value are left out."""
OWN = ("changed", "how", "asked", "own effect", "low", "high", "moved")


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

    First comes the own effect: how far what was changed moved itself. Then what changed besides; attributes
    have an @ before them.

    \b
    effect       mean change, in standard deviations of the training data; low and high
                 are its 95% bootstrap interval over the samples, of each effect by itself
    asked        what of it the request itself asks for; beyond is what goes further, and
                 of a prototype only that counts: within what was asked, p is 1
    leakage      beyond, as a share of the own effect
    p            of no effect, corrected for all pairs of its kind; 0.05 or less is established
    seen beside  data: the two, of attributes their probes, correlate over the data; overlap: both
                 prototypes look at the same place; asked: half of the effect, or more, was
                 asked for. None of these is a proof of the cause.

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
        _tell(found, quiet=session.quiet)
    if out is not None:
        writers = {
            ".json": text_writer(lambda: to_json(answer)),
            ".csv": text_writer(lambda: to_csv(COLUMNS, _cells(_rows(found), COLUMNS))),
        }
        write(out, writers)


Row = dict[str, object]


def _tell(found: Diagnosis, *, quiet: bool) -> None:
    """Tables on stdout; on stderr what they say in short, and unless `quiet` what is in them."""
    click.echo(to_table(OWN, [_own(intervention) for intervention in found.interventions]))
    rows = _rows(found)
    columns = [name for name in TABLE if any(row[name] != "-" for row in rows)]
    if rows:
        click.echo()
        click.echo(to_table([TABLE[name] for name in columns], _cells(rows, columns)))
    if not quiet:
        click.echo("\n".join(["", *_legend(found, columns)]), err=True)
    click.echo("\n".join(["", *_summary(found)]), err=True)


def _own(item: Intervention) -> list[object]:
    how = "0.01 to 0.99 quantile"
    if item.edit is not None:
        how = " ".join(str(part) for part in (item.edit["op"], item.edit["value"]) if part is not None)
    numbers = (item.asked, item.effect, item.low, item.high)
    return [_changed(item), how, *map(number, numbers), "yes" if item.responds else "not told from chance"]


def _rows(found: Diagnosis) -> list[Row]:
    """Couplings of prototypes; where attributes are changed, first what that does to other attributes."""
    rows = [_row(coupling, "") for coupling in found.couplings]
    if found.attributes is None or not _is_of_attributes(found):
        return rows
    return [_row(coupling, "@") for coupling in found.attributes.couplings] + rows


def _is_of_attributes(found: Diagnosis) -> bool:
    """Whether attributes are changed."""
    return any(item.attribute is not None for item in found.interventions)


def _row(coupling: Coupling, mark: str) -> Row:
    """mark: what stands before the name of what is affected."""
    finding = coupling.finding or ("established" if coupling.is_established else "chance")
    return {
        "prototype": _changed(coupling),
        "affected": _affected(coupling, mark),
        "effect": number(coupling.effect),
        "low": number(coupling.low),
        "high": number(coupling.high),
        "p": f"{coupling.p:.4f}",
        "leakage": number(coupling.leakage),
        "data_correlation": number(coupling.data_correlation),
        "overlap": number(coupling.overlap),
        "asked": number(coupling.asked),
        "beyond": "-" if mark or coupling.asked is None else number(coupling.beyond),
        "finding": {"within_asked": "within what was asked", "chance": "may be chance"}.get(finding, finding),
        "seen_beside": ", ".join(coupling.explained_by) or "-",
    }


def _changed(item: Coupling | Intervention) -> object:
    if item.attribute is not None:
        return f"@{item.attribute}"
    return item.name or item.prototype


def _affected(coupling: Coupling, mark: str) -> str:
    return f"{mark}{coupling.affected_name or coupling.affected}"


def _cells(rows: Sequence[Row], columns: Sequence[str]) -> list[list[object]]:
    return [[row[name] for name in columns] for row in rows]


def _legend(found: Diagnosis, columns: Sequence[str]) -> list[str]:
    """What the columns hold, in a line each."""
    tested = f"all {found.num_pairs} pairs with prototypes"
    if found.attributes is not None and _is_of_attributes(found):
        tested += f", and for all {found.attributes.num_pairs} with attributes (@) by themselves"
    lines = [
        "effect: mean change, in standard deviations of the training data; low, high: its 95% bootstrap "
        f"interval over {found.num_samples} samples, of each effect by itself",
        f"p: of no effect, by flipping signs of samples, corrected for {tested}; 0.05 or less is established",
    ]
    if "leakage" in columns:
        lines.append("leakage: the effect (of prototypes, what of it is beyond) as a share of the own effect")
    if "asked" in columns:
        lines.append(
            "asked: what of the effect the request itself asks for; beyond: what goes further. Of prototypes "
            "only that counts: within what was asked, p is 1"
        )
    if "seen_beside" in columns and found.thresholds is not None:
        least = found.thresholds
        lines.append(
            "seen beside, which proves no cause: data, r of the activations (of attributes: of what their "
            f"probes read) over the training data is {least.data_correlation:g} or more in the direction of "
            f"the effect; overlap, boxes overlap by {least.overlap:.2f} or more; asked, {least.asked:.0%} or "
            "more of the effect was asked for"
        )
    return lines


def _summary(found: Diagnosis) -> list[str]:
    lines = [
        f"{found.num_established} of {found.num_pairs} effects on prototypes are established, "
        f"{found.num_leaking} with a leakage of a tenth or more"
    ]
    strongest = [_strongest("prototype", found.couplings, "")]
    if found.attributes is not None:
        of_all = "" if found.attributes.num_pairs is None else f" of {found.attributes.num_pairs}"
        lines.append(f"{found.attributes.num_established}{of_all} effects on attributes are established")
        if _is_of_attributes(found):
            strongest.insert(0, _strongest("attribute", found.attributes.couplings, "@"))
    return lines + [line for line in strongest if line]


def _strongest(kind: str, couplings: Sequence[Coupling], mark: str) -> str:
    """The first in rank, if it is established."""
    if not couplings or not couplings[0].is_established:
        return ""
    first = couplings[0]
    leakage = "" if first.leakage is None else f", leakage {first.leakage:+z.2f}"
    return (
        f"strongest on another {kind}: {_changed(first)} -> {_affected(first, mark)}, "
        f"effect {first.effect:+z.2f} ({first.low:+z.2f} to {first.high:+z.2f}){leakage}, p {first.p:.4f}"
    )
