"""`patronus pull`"""

from __future__ import annotations

from pathlib import Path

import click

from model import hub
from model.bundle_address import HubAddress
from service.cli.addresses import HubAddressType
from service.cli.output import to_json
from service.cli.progress import ProgressLine


@click.command()
@click.argument("address", type=HubAddressType())
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@click.option("-q", "--quiet", is_flag=True, help="no progress on the terminal")
def pull(address: HubAddress, directory: Path | None, as_json: bool, quiet: bool) -> None:
    """Bring the bundle at ADDRESS of the Hugging Face hub into DIRECTORY, NAME by default.

    Only the bundle's own files are fetched, and each must have the digest that the manifest says. What is
    in DIRECTORY already is never replaced. HF_TOKEN is for private repositories, HF_ENDPOINT for another
    hub; downloads are kept in HF_HOME, and HF_HUB_OFFLINE=1 takes them from there. Needs the extra `hub`.

    \b
    patronus pull hf://someone/faces
    patronus pull hf://someone/faces@v2 bundles/faces
    """
    out = directory or Path(address.name)
    with ProgressLine(quiet=quiet) as line:
        bundle = hub.pull(address, out, told=line.follow_file)
    if as_json:
        found = {"name": bundle.name, "digest": bundle.digest, "source": bundle.source, "written": str(out)}
        click.echo(to_json(found))
    else:
        click.echo(f"pulled {bundle.name} ({bundle.digest[:12]}) of {bundle.source} into {out}")
