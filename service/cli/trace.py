"""`patronus trace`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from service.cli.output import (
    OutType,
    kind_of,
    number,
    pixels_of,
    text_writer,
    to_csv,
    to_json,
    to_table,
    write,
)
from service.cli.sampling import sample_options, with_sampling
from service.cli.target import Target, with_target
from service.client import Trace, calls
from service.images import filmstrip_png


@click.command()
@with_sampling
@click.option("--num-previews", type=click.IntRange(0, 100), default=8, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="print the whole answer, pictures in base64")
@click.option(
    "--csv", "as_csv", is_flag=True, help="print CSV: a line for each step, a column for each prototype"
)
@click.option(
    "-o",
    "--out",
    type=OutType(".png", ".csv", ".json"),
    help="a .png of the previews (a row for each image), a .csv or a .json",
)
@with_target
def trace(
    target: Target, num_previews: int, as_json: bool, as_csv: bool, out: Path | None, **options: Any
) -> None:
    """Say when each prototype appears while images are sampled.

    A prototype emerges at the timestep from which its activation stays beyond half of its change from the
    first x̂₀ to the last; timesteps go from T - 1 to 0, so that larger is earlier. Printed are the median over
    the images in which it changes at all, how many those are, and the spread between the quartiles.

    \b
    patronus trace -n 8 --steps 50
    patronus trace --image shirt.png --steps 50 -o filmstrip.png
    """
    if out is not None and kind_of(out) == ".png" and num_previews == 0:
        raise click.BadParameter("a .png is made of the previews: --num-previews must be 1 or more")
    call = calls.trace(**sample_options(**options), num_previews=num_previews)
    with target.open() as session:
        answer, traced = session.ask(call)
    if as_json:
        click.echo(to_json(answer))
    elif as_csv:
        click.echo(_csv(traced))
    elif out is None:
        click.echo(to_table(["prototype", "emerges at", "spread", "images"], _table(traced)))
        click.echo(
            "emerges at: the timestep (large is early) from which the activation stays beyond half of its "
            "change from the first x̂₀ to the last, median over the images in which it changes",
            err=True,
        )
    if out is not None:
        writers = {
            ".png": lambda path: _write_previews(traced, path),
            ".csv": text_writer(lambda: _csv(traced)),
            ".json": text_writer(lambda: to_json(answer)),
        }
        write(out, writers)


def _csv(traced: Trace) -> str:
    header = ["timestep", *(f"s_{j}" for j in range(traced.activations.shape[1]))]
    rows = zip(traced.timesteps, np.round(traced.activations.astype(float), 6).tolist(), strict=True)
    return to_csv(header, ([timestep, *activations] for timestep, activations in rows))


def _table(traced: Trace) -> list[list[object]]:
    """The earliest first, those that never appear last."""
    order = np.argsort(np.where(np.isnan(traced.emergence), np.inf, -traced.emergence), kind="stable")
    return [
        [j, number(traced.emergence[j]), number(traced.emergence_spread[j]), traced.num_emerged[j]]
        for j in order.tolist()
    ]


def _write_previews(traced: Trace, path: Path) -> None:
    rows = [[pixels_of(preview.image) for preview in image.previews] for image in traced.images]
    path.write_bytes(filmstrip_png(rows))
