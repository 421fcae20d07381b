"""`patronus serve`"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import click

from service.settings import PREFIX, Settings

SECRETS = frozenset(item.name for item in dataclasses.fields(Settings) if not item.repr)
"""Never options: everybody on the machine can read a command line."""


@click.command(
    epilog="API keys, and the cache's URL, which may hold a password, come from PATRONUS_API_KEYS and "
    "PATRONUS_CACHE_URL only."
)
def serve(**options: str | None) -> int:
    """Serve models over HTTP until Ctrl-C or SIGTERM.

    Every option is a setting; what is not given comes from its PATRONUS_* variable, else its default.

    \b
    patronus serve
    patronus serve --bundle bundles/mine --host 0.0.0.0 --port 9000
    """
    from service import __main__ as serving  # slow to import, and of no use to the other commands

    given = {PREFIX + name.upper(): value for name, value in options.items() if value is not None}
    return serving.main(environment={**os.environ, **given})


def _help(item: dataclasses.Field[Any]) -> str:
    """The setting, and its default where there is one that is the same for everybody."""
    variable, default = PREFIX + item.name.upper(), item.default
    if default is dataclasses.MISSING:
        return f"{variable}  [default: the user's]"
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"{variable}  [default: {shown}]" if shown else variable


for item in dataclasses.fields(Settings):
    if item.name not in SECRETS:
        serve.params.append(
            click.Option(
                ["--" + item.name.replace("_", "-"), item.name],
                metavar="VALUE",
                help=_help(item),
            )
        )
