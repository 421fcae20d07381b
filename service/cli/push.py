"""`patronus push`"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from model.bundle import Bundle
from model.bundle_address import HubAddress
from model.hub import Hub
from model.model_card import model_card
from service.cli.addresses import HubAddressType
from service.cli.output import to_json


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("address", type=HubAddressType())
@click.option("--license", help="for the model card, as the hub calls it: mit, apache-2.0, other")
@click.option("--private", "is_private", is_flag=True, help="a repository that others cannot see")
@click.option("--no-card", is_flag=True, help="leave README.md and prototypes.png of the repository alone")
@click.option("--dry-run", is_flag=True, help="print the model card, and send nothing")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@click.option("-q", "--quiet", is_flag=True, help="no progress on the terminal")
def push(
    bundle: Path,
    address: HubAddress,
    license: str | None,
    is_private: bool,
    no_card: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Put BUNDLE on the Hugging Face hub at ADDRESS, with a model card made of its manifest.

    The repository is created where it is not there; @BRANCH writes to that branch. HF_TOKEN must hold a
    token that may write. Needs the extra `hub`.

    \b
    patronus push bundles/mine hf://me/mine --license mit --dry-run
    patronus push bundles/mine hf://me/mine --license mit --private
    """
    loaded = Bundle.load(bundle)
    if dry_run:
        click.echo(model_card(loaded, address, license=license), nl=False)
        return
    written = Hub().push(
        loaded,
        address,
        license=license,
        is_private=is_private,
        with_card=not no_card,
        with_progress=sys.stderr.isatty() and not quiet,
    )
    if as_json:
        click.echo(to_json({"name": loaded.name, "digest": loaded.digest, "source": str(written)}))
    else:
        click.echo(f"pushed {loaded.name} ({loaded.digest[:12]}) to {written}")
