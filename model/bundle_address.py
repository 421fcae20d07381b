"""Where a bundle is: a directory here, or a repository of the Hugging Face hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SCHEME = "hf://"
FORM = f"{SCHEME}ORGANISATION/NAME or {SCHEME}ORGANISATION/NAME@REVISION"
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.\-]*"
_ADDRESS = re.compile(rf"(?P<repository>{_NAME}/{_NAME})(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9_./\-]*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubAddress:
    """A model repository, `organisation/name`; revision: a branch, tag or commit, None: the main branch."""

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubAddress:
        """Of hf://organisation/name[@revision]. Raises ValueError."""
        found = _ADDRESS.fullmatch(text.removeprefix(SCHEME))
        if not text.startswith(SCHEME) or found is None or any(bad in text for bad in ("..", "--")):
            raise ValueError(f"{text!r} is not of the form {FORM}")
        return cls(found["repository"], found["revision"])

    @property
    def name(self) -> str:
        """Without the organisation."""
        return self.repository.rpartition("/")[2]

    @property
    def is_commit(self) -> bool:
        """Whether the revision is one that can never mean something else."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def at(self, commit: str) -> HubAddress:
        return HubAddress(self.repository, commit)

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}" + ("" if self.revision is None else f"@{self.revision}")


BundleAddress = Path | HubAddress


def bundle_address(text: str) -> BundleAddress:
    """What people write for a bundle. Raises ValueError for hf:// with something else than a repository."""
    return HubAddress.parse(text) if text.startswith(SCHEME) else Path(text)
