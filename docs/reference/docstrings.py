"""Docstrings as mkdocstrings shows them: prose, in which brackets and underscores mean themselves."""

from __future__ import annotations

from typing import Any

import griffe

from docs.reference.markdown import prose


class PlainDocstrings(griffe.Extension):
    """Escapes what Markdown would read as links and emphasis, except in indented examples."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)


def plain(docstring: str) -> str:
    """Each paragraph escaped; one that is indented, or a table, stays as it is."""
    return "\n".join(
        line if line.startswith(("    ", "|")) else prose(line) for line in docstring.splitlines()
    )
