"""GET and HEAD of / and /studio/…: the Prototype Studio, a page on this API."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from service.middleware import STUDIO_PATH
from service.routes.answering import accepts

DIRECTORY = Path(__file__).parents[1] / "studio"
PAGE = "index.html"
METHODS = ["GET", "HEAD"]
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept by browsers, and asked about: the ETag says whether it still holds
}


@dataclass(frozen=True)
class StaticFile:
    """One file of the page, as it is sent."""

    body: bytes
    media_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> StaticFile:
        body = path.read_bytes()
        return cls(body, MEDIA_TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def read_files(directory: Path = DIRECTORY) -> dict[str, StaticFile]:
    """Every file below `directory` that a browser may have, by its path in there."""
    return {
        path.relative_to(directory).as_posix(): StaticFile.read(path)
        for path in sorted(directory.rglob("*"))
        if path.suffix in MEDIA_TYPES
    }


def studio_router() -> APIRouter:
    """The page at / for browsers, whom others find at /docs; its files below /studio/.

    The files are read once: what is sent is what the service started with, the same from each replica.
    """
    router = APIRouter(include_in_schema=False)
    files = read_files()

    @router.api_route("/", methods=METHODS)
    async def page(request: Request) -> Response:
        """The page, for whoever accepts text/html, as browsers do; for others the API's description."""
        response = _sent(request, files, PAGE) if accepts(request, "text/html") else RedirectResponse("/docs")
        response.headers["Vary"] = "Accept"
        return response

    @router.api_route(STUDIO_PATH + "{path:path}", methods=METHODS)
    async def file(request: Request, path: str) -> Response:
        return _sent(request, files, path)

    return router


def _sent(request: Request, files: Mapping[str, StaticFile], path: str) -> Response:
    found = files.get(path)
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "the studio has no such file")
    headers = HEADERS | {"ETag": found.etag}
    if found.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(found.body, media_type=found.media_type, headers=headers)
