"""`python -m service.probe`: ask the service on this machine how it is, as containers' health checks do."""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import sys
from collections.abc import Callable, Sequence

from service.settings import Settings, SettingsError

TIMEOUT_S = 4.0
EVERYWHERE = ("0.0.0.0", "::", "")
"""Addresses to listen on that nobody can connect to."""


def main(arguments: Sequence[str] | None = None, *, end: Callable[[], None] | None = None) -> int:
    """0 if it is ready (or `--path` is answered with 200), else 1, with what it said on stdout.

    With `--end-dead`, `end` is called where /healthz says that only a restart can help; it ends process 1,
    which in a container is the service.
    """
    parser = argparse.ArgumentParser(prog="python -m service.probe", description=__doc__)
    parser.add_argument("--path", default="/readyz")
    parser.add_argument("--end-dead", action="store_true", help="have process 1 end when it cannot recover")
    given = parser.parse_args(arguments)
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        print(f"patronus: {error}", file=sys.stderr)
        return 1
    host = "127.0.0.1" if settings.host in EVERYWHERE else settings.host
    status, text = _get(host, settings.port, given.path)
    print(text)
    if given.end_dead and status == 503 and _get(host, settings.port, "/healthz")[0] == 503:
        print("only a restart can help: ending it")
        (end or end_process_1)()
    return 0 if status == 200 else 1


def _get(host: str, port: int, path: str) -> tuple[int | None, str]:
    """Status and body; None, and why, where there is no answer."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return None, f"no answer from {host}:{port}: {error}"
    finally:
        connection.close()


def end_process_1() -> None:
    """SIGTERM to process 1, which in a container is the service: it answers whom it can, and goes."""
    os.kill(1, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
