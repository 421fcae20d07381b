"""A hub on this machine: what `huggingface_hub` asks of one over HTTP, with faults on demand.

Git is left out: a commit is a list of files. Large files go the way of Git LFS: asked for in a batch, put to
a store of their own, and resolved by a redirect to it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

WRITER, READER = "hf_writer", "hf_reader"
"""Tokens: of who may write, and of who may read private repositories."""
LARGE = (".onnx", ".safetensors", ".png")


@dataclass
class Repository:
    """commits: the files of each, by name; branches: the last commit of each."""

    is_private: bool = False
    is_gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        number = f"{len(self.commits)}:{sorted(files)}".encode()
        name = hashlib.sha1(number, usedforsecurity=False).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        return name

    def resolve(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.branches["main"]]


class StandInHub:
    """repositories: by `organisation/name`; asked: every request, as `METHOD path`.

    broken_off, cut, damaged: how many times a file is sent so that the connection ends in its middle, so that
    half of it seems to be all, or with other bytes; status: that of every answer, where it is not None.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.store: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()
        self.broken_off: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        self.damaged: Counter[str] = Counter()
        self.status: int | None = None
        self.url = ""
        self.store_url = ""

    @contextmanager
    def serving(self) -> Iterator[StandInHub]:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            port = server.server_address[1]
            self.url = f"http://127.0.0.1:{port}"
            self.store_url = f"http://localhost:{port}/store"  # another host, as far as a client can tell
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: StandInHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self._chunks())
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        authorization = self.headers.get("Authorization")
        self._token = authorization.removeprefix("Bearer ") if authorization else None
        self.hub.tokens.add(self._token)
        if self.hub.status is not None:
            self._json({"error": "out of order"}, self.hub.status)
            return
        for method, pattern, handle in _ROUTES:
            found = re.fullmatch(pattern, path)
            if method == self.command.replace("HEAD", "GET") and found:
                handle(self, body, *found.groups())
                return
        self._json({"error": f"no such route: {self.command} {path}"}, 404)

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    # What is asked

    def _create(self, body: bytes) -> None:
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        if not self._may_write():
            return
        if name in self.hub.repositories:
            self._json({"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}, 409)
            return
        self.hub.repositories[name] = repository = Repository(
            is_private=wanted.get("visibility") == "private" or wanted.get("private") is True
        )
        repository.commit("main", {".gitattributes": b"*.onnx filter=lfs\n"})
        self._json({"url": f"{self.hub.url}/{name}", "name": name})

    def _branch(self, body: bytes, name: str, branch: str) -> None:
        repository = self._readable(name)
        if repository is None or not self._may_write():
            return
        if branch in repository.branches:
            self._json({"error": "reference already exists"}, 409)
            return
        repository.branches[branch] = repository.branches["main"]
        self._json({})

    def _info(self, body: bytes, name: str, revision: str | None) -> None:
        repository = self._readable(name)
        commit = self._commit(repository, revision or "main")
        if repository is not None and commit is not None:
            names = [{"rfilename": file} for file in repository.commits[commit]]
            self._json({"id": name, "sha": commit, "siblings": names, "private": repository.is_private})

    def _validate(self, body: bytes) -> None:
        content = json.loads(body)["content"]
        if content.startswith("---\n"):
            self._json({"errors": [], "warnings": []})
        else:
            self._json({"errors": [{"message": "no metadata"}], "warnings": []}, 400)

    def _preupload(self, body: bytes, name: str, revision: str) -> None:
        repository = self._readable(name)
        if repository is None or not self._may_write():
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._json({"files": files})

    def _batch(self, body: bytes, name: str) -> None:
        if self._readable(name) is None or not self._may_write():
            return
        wanted = json.loads(body)
        objects: list[dict[str, Any]] = []
        for entry in wanted["objects"]:
            oid = entry["oid"]
            if oid not in self.hub.store:
                upload = {"href": f"{self.hub.store_url}/{oid}"}
                entry = {**entry, "actions": {"upload": upload}}
            objects.append(entry)
        self._json({"transfer": "basic", "objects": objects})

    def _keep(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            self._json({"error": "not these bytes"}, 400)
            return
        self.hub.store[oid] = body
        self._json({})

    def _write(self, body: bytes, name: str, branch: str) -> None:
        repository = self._readable(name)
        if repository is None or not self._may_write():
            return
        files = dict(repository.commits[repository.branches[branch]])
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.store[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        commit = repository.commit(branch, files)
        self._json(
            {"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit, "hookOutput": ""}
        )

    def _resolve(self, body: bytes, name: str, rest: str) -> None:
        revision, _, file = rest.rpartition("/")
        repository = self._readable(name)
        commit = self._commit(repository, revision)
        if repository is None or commit is None:
            return
        content = repository.commits[commit].get(file)
        headers = {"X-Repo-Commit": commit}
        if content is None:
            self._json({"error": "Entry not found"}, 404, {**headers, "X-Error-Code": "EntryNotFound"})
        elif file.endswith(LARGE):
            oid = hashlib.sha256(content).hexdigest()
            self.hub.store[oid] = content
            headers |= {
                "X-Linked-Etag": f'"{oid}"',
                "X-Linked-Size": str(len(content)),
                "Location": f"{self.hub.store_url}/{oid}?name={file}",
            }
            self._send(b"", 302, headers)
        else:
            self._download(file, content, headers)

    def _stored(self, body: bytes, oid: str) -> None:
        self._download(urlsplit(self.path).query.removeprefix("name="), self.hub.store[oid], {})

    # How it is answered

    def _download(self, file: str, content: bytes, headers: dict[str, str]) -> None:
        blob = f"blob {len(content)}\0".encode() + content
        headers = {"ETag": f'"{hashlib.sha1(blob, usedforsecurity=False).hexdigest()}"', **headers}
        if self.command == "GET":
            if self._comes_now(self.hub.damaged, file):
                content = content[:-1] + bytes([content[-1] ^ 1])
            if self._comes_now(self.hub.cut, file):
                content = content[: len(content) // 2]
        self._send(
            content, 200, headers, half=self.command == "GET" and self._comes_now(self.hub.broken_off, file)
        )

    @staticmethod
    def _comes_now(fault: Counter[str], file: str) -> bool:
        fault[file] -= 1
        return fault[file] >= 0

    def _readable(self, name: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        is_known = self._token in (WRITER, READER)
        if self._token is not None and not is_known:
            message = "Invalid credentials in Authorization header"
            self._json({"error": message}, 401, {"X-Error-Message": message})
        elif repository is None or (repository.is_private and not is_known):
            # The hub does not tell those two from each other.
            headers = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            self._json({"error": "Repository not found"}, 404 if is_known else 401, headers)
        elif repository.is_gated and self._token != WRITER:
            self._json({"error": "Access is restricted"}, 403, {"X-Error-Code": "GatedRepo"})
        else:
            return repository
        return None

    def _commit(self, repository: Repository | None, revision: str) -> str | None:
        if repository is None:
            return None
        commit = repository.resolve(revision)
        if commit is None:
            self._json({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        return commit

    def _may_write(self) -> bool:
        if self._token != WRITER:
            status = 401 if self._token is None else 403
            self._json({"error": "You don't have the rights to write"}, status)
        return self._token == WRITER

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(
            json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})}
        )

    def _send(self, body: bytes, status: int, headers: dict[str, str], *, half: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if half else body)
        if half:
            self.close_connection = True


_NAME = r"([^/]+/[^/]+)"
_ROUTES: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/api/repos/create", _Handler._create),
    ("POST", "/api/validate-yaml", _Handler._validate),
    ("POST", f"/api/models/{_NAME}/branch/(.+)", _Handler._branch),
    ("POST", f"/api/models/{_NAME}/preupload/(.+)", _Handler._preupload),
    ("POST", f"/api/models/{_NAME}/commit/(.+)", _Handler._write),
    ("GET", f"/api/models/{_NAME}(?:/revision/(.+))?", _Handler._info),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler._batch),
    ("PUT", "/store/([0-9a-f]+)", _Handler._keep),
    ("GET", "/store/([0-9a-f]+)", _Handler._stored),
    ("GET", f"/{_NAME}/resolve/(.+)", _Handler._resolve),
)
