"""The command line `patronus`. See `service.cli.program`."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    from service.cli.program import run  # what the client is imported for needs no more than the client

    return run(arguments)
