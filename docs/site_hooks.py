"""What MkDocs calls while it builds: pages from the code, measurements, pictures, the notebook."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs.notebook_page import notebook_page
from docs.reference.bundle_format import bundle_page
from docs.reference.http_api import document, http_api_page, http_bodies_page
from docs.reference.metrics_table import metrics_page
from docs.reference.patronus_command import patronus_page
from docs.reference.settings_table import settings_page
from docs.reference.shipped_models import shipped_models_page
from docs.reference.training_command import training_page
from docs.results_tables import RESULTS, ResultsTableError, with_tables

DOCS = Path(__file__).parent
NOTEBOOK = DOCS / "notebook" / "patronus.ipynb"
NOTEBOOK_PAGE = "how-to/notebook.md"
MEASUREMENTS = "measurements"
RAY = DOCS.parent / "deploy" / "ray"
PAGES_ELSEWHERE = {
    "how-to/many-devices.md": DOCS / "training_on_many_devices.md",
    "operating/changes.md": DOCS.parent / "CHANGELOG.md",
    "operating/ray/index.md": RAY / "README.md",
    "operating/runbook.md": DOCS / "runbook.md",
    "operating/tracing.md": DOCS / "tracing.md",
}
"""Where in the site pages stand that are kept, once, where readers of the code look for them."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every page and picture that is not in docs/site."""
    for uri, content in _generated():
        files.append(File.generated(config, uri, content=content))
    for uri, path in _existing():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put in the tables of measurements that a page asks for."""
    del config, files
    there = posixpath.relpath(MEASUREMENTS, posixpath.dirname(page.file.src_uri) or ".")
    try:
        return with_tables(markdown, measurements=there)
    except ResultsTableError as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from error


def _generated() -> Iterator[tuple[str, str | bytes]]:
    api = document()
    yield "reference/http-api.md", http_api_page(api)
    yield "reference/http-bodies.md", http_bodies_page(api)
    yield "reference/patronus.md", patronus_page()
    yield "reference/training.md", training_page()
    yield "reference/settings.md", settings_page()
    yield "reference/metrics.md", metrics_page()
    yield "reference/bundle.md", bundle_page()
    yield "reference/shipped-models.md", shipped_models_page()
    notebook = notebook_page(NOTEBOOK)
    yield NOTEBOOK_PAGE, notebook.markdown
    for name, picture in notebook.pictures.items():
        yield posixpath.join(posixpath.dirname(NOTEBOOK_PAGE), name), picture


def _existing() -> Iterator[tuple[str, Path]]:
    """(where in the site, the file) of what is kept elsewhere."""
    yield from PAGES_ELSEWHERE.items()
    for file in sorted(RAY.glob("*.y*ml")):  # to which the page links
        yield f"operating/ray/{file.name}", file
    yield "patronus.ipynb", NOTEBOOK
    for picture in sorted(DOCS.glob("*.png")):
        yield f"pictures/{picture.name}", picture
    for result in sorted((*RESULTS.rglob("*.md"), *RESULTS.rglob("*.png"))):
        yield f"{MEASUREMENTS}/{result.relative_to(RESULTS).as_posix()}", result
