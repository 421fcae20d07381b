"""The page of the settings, from `service.settings`."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.reference.markdown import code, prose, table
from service.settings import (
    _CHOICES,
    _RANGES,
    BUNDLES,
    CLIENT_PREFIX,
    FILE,
    PREFIX,
    SECRETS,
    Settings,
)

_NAMES = re.compile(r"[a-z_]+(, [a-z_]+)*")


def settings_page() -> str:
    secrets = " and ".join(code(PREFIX + name.upper() + FILE) for name in SECRETS)
    return "\n".join(
        (
            "# Settings\n",
            "*Written from `service/settings.py`.* Environment variables; a bad value or an unknown name "
            "stops start-up and names itself.\n",
            table(("variable", "default", "allowed", "meaning"), _rows()),
            f"{secrets} name files that hold those settings, as containers get secrets; a file that holds "
            "nothing stops start-up. In a file of keys each may have a line of its own.\n",
            f"Variables that begin with `{CLIENT_PREFIX}` are for the program "
            "[`patronus`](patronus.md), not for the service.\n",
        )
    )


def meanings() -> dict[str, str]:
    """What the docstring of Settings says of each field: `name, name: meaning; name: meaning.`"""
    found: dict[str, str] = {}
    for paragraph in inspect.cleandoc(Settings.__doc__ or "").split("\n\n"):
        for entry in " ".join(paragraph.split()).rstrip(".").split("; "):
            names, colon, meaning = entry.partition(": ")
            if colon and _NAMES.fullmatch(names):
                found |= dict.fromkeys(names.split(", "), meaning)
    return found


def _rows() -> Iterator[list[str]]:
    said = meanings()
    for field in dataclasses.fields(Settings):
        yield [
            code(PREFIX + field.name.upper()),
            _default(field),
            _allowed(field),
            prose(said.get(field.name, "")),
        ]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:  # only the user's directories depend on who asks
        return "the user's"
    default = field.default
    if isinstance(default, tuple):
        return ", ".join(code(_relative(item)) for item in default) or "none"
    if default == "":
        return "none"
    return code(str(default))


def _allowed(field: dataclasses.Field[Any]) -> str:
    if field.name in _RANGES:
        low, high = _RANGES[field.name]
        return f"{low:,} to {high:,}".replace(",", " ")
    return ", ".join(code(choice) for choice in _CHOICES.get(field.name, ()))


def _relative(item: object) -> str:
    return str(item.relative_to(BUNDLES.parent)) if isinstance(item, Path) else str(item)
