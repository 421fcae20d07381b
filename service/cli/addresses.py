"""Addresses of bundles as they are written on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from model.bundle_address import SCHEME, BundleAddress, HubAddress


class HubAddressType(click.ParamType[HubAddress]):
    """hf://ORGANISATION/NAME, with @REVISION or without."""

    name = "hf://organisation/name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> HubAddress:
        if isinstance(value, HubAddress):
            return value
        try:
            return HubAddress.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class BundleType(click.Path):
    """A directory, which a shell can complete, or an address of the hub."""

    def __init__(self) -> None:
        super().__init__(exists=True, file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, HubAddress):
            return value
        if isinstance(value, str) and value.startswith(SCHEME):
            return HubAddressType().convert(value, param, ctx)
        found: BundleAddress = super().convert(value, param, ctx)  # type: ignore[assignment]
        return found
