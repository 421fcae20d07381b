"""A notebook as a page: its text as it is, its code, and the pictures and texts that it has printed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class NotebookPage:
    """markdown: the page; pictures: its PNG files by name, which it expects beside itself."""

    markdown: str = ""
    pictures: dict[str, bytes] = field(default_factory=dict)


def notebook_page(path: Path) -> NotebookPage:
    page = NotebookPage()
    parts: list[str] = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code":
            parts.append(f"```python\n{source}\n```")
            for output in cell["outputs"]:
                parts += _output(output, page, path.stem)
    page.markdown = "\n\n".join(parts) + "\n"
    return page


def _output(output: Mapping[str, Any], page: NotebookPage, stem: str) -> Iterator[str]:
    data = output.get("data", {})
    if "image/png" in data:
        name = f"{stem}-{len(page.pictures)}.png"
        page.pictures[name] = base64.b64decode("".join(data["image/png"]))
        yield f"![What the cell above shows]({name})"
    else:
        text = "".join(output.get("text", data.get("text/plain", ""))).rstrip()
        if text:
            yield f"```text\n{text}\n```"
