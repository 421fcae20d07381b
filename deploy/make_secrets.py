"""Make the passwords of the stack, once: `make_secrets.py CACHE_DIRECTORY GRAFANA_DIRECTORY`.

Runs as a container of its own before the others, into volumes that only those mount who need them: Redis and
the service the first, Grafana the second. What is there already stays, so passwords outlive restarts.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path


def main() -> None:
    cache, grafana = (Path(argument) for argument in sys.argv[1:])
    if not (cache / "cache_url").exists():
        password = secrets.token_urlsafe(32)
        write(cache / "redis_password", password)
        write(cache / "redis_auth.conf", f"requirepass {password}")
        write(cache / "cache_url", f"redis://:{password}@redis:6379/0")  # last: with it, all are there
    if not (grafana / "admin_password").exists():
        write(grafana / "admin_password", secrets.token_urlsafe(24))


def write(path: Path, text: str) -> None:
    """All at once, and for any user of the containers that mount it."""
    draft = path.with_suffix(".draft")
    draft.write_text(text + "\n")
    draft.chmod(0o444)
    os.replace(draft, path)


if __name__ == "__main__":
    main()
