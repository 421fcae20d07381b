"""Run docs/notebook/patronus.ipynb as Jupyter would, from its own folder: `python docs/run_notebook.py`.

A cell that fails ends it with a status of 1. With --write, the notebook keeps what its cells showed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebook" / "patronus.ipynb"
TIMEOUT_S = 120
"""For one cell."""


def main(arguments: list[str]) -> int:
    os.environ["PYTHONPATH"] = str(ROOT)  # for the kernel: this copy of the project
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook, timeout=TIMEOUT_S, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    try:
        client.execute()
    except CellExecutionError as error:
        print(error, file=sys.stderr)
        return 1
    if "--write" in arguments:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # when each cell ran: another time, another file
        nbformat.write(notebook, NOTEBOOK)  # type: ignore[no-untyped-call]
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
