"""`patronus models`"""

from __future__ import annotations

import click

from service.cli.output import to_json, to_table
from service.cli.target import Target, with_target
from service.client import calls


@click.command()
@click.option("--json", "as_json", is_flag=True, help="print the whole answer, with metrics and provenance")
@with_target
def models(target: Target, as_json: bool) -> None:
    """List the models that are served, the default one first."""
    with target.open() as session:
        answer, found = session.send(calls.models())
    if as_json:
        click.echo(to_json(answer))
        return
    rows = [
        [
            model.name,
            model.digest[:12],
            "x".join(map(str, model.image_shape)),
            model.num_prototypes,
            "yes" if model.has_prior else "no",
            model.source or "-",
        ]
        for model in found.models
    ]
    click.echo(to_table(["name", "digest", "image", "prototypes", "prior", "source"], rows))
