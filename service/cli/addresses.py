"""Addresses of bundles and services, and the keys of services, as they are given to commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from model.bundle_address import SCHEME, BundleAddress, HubAddress
from service.client.exchange import base_headers, base_url


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


class UrlType(click.ParamType[str]):
    """The address of a service."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(base_url(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class KeyType(click.ParamType[str]):
    """A key that a header can hold; the line end that a file has behind it does not belong to it."""

    name = "key"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        key = str(value).strip()
        try:
            base_headers(key)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return key


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
