"""The built site as a reader's browser sees it: links, anchors, and what pages load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "object": "data"}
"""Attributes that make a browser fetch something; of <link>, href does where rel is none of UNLOADED."""
UNLOADED = {"canonical", "next", "prev"}


@dataclass
class SitePage:
    """links: of <a>; loads: what the page fetches; ids: its anchors."""

    path: Path
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)


def site_pages(site: Path) -> dict[str, SitePage]:
    """All pages by their place in the site, such as `how-to/edit.html`."""
    found = {}
    for path in sorted(site.rglob("*.html")):
        reader = _Reader(SitePage(path))
        reader.feed(path.read_text(encoding="utf-8"))
        reader.close()
        found[path.relative_to(site).as_posix()] = reader.page
    return found


def dead_links(pages: Mapping[str, SitePage]) -> list[str]:
    """The site's own links and loads that lead to no file, or to no anchor, behind the page that has them."""
    ids = {page.path: page.ids for page in pages.values()}
    dead = []
    for name, page in pages.items():
        path = page.path
        if name == "404.html":  # its links begin with the address that the site will have
            continue
        for link in (*page.links, *page.loads):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and anchor not in ids.get(target, {anchor})):
                dead.append(f"{name}: {link}")
    return dead


class _Reader(HTMLParser):
    def __init__(self, page: SitePage) -> None:
        super().__init__()
        self.page = page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.page.ids.add(given["id"])
        if tag == "a" and "href" in given:
            self.page.links.append(given["href"])
        if tag == "link" and given.get("rel") not in UNLOADED:
            self.page.loads.append(given["href"])
        if tag in LOADED and given.get(LOADED[tag]):
            self.page.loads.append(given[LOADED[tag]])
