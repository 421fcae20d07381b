"""Bundles on the Hugging Face hub: fetched, verified, and pushed.

`huggingface_hub` speaks to it, and is imported only here and only when an address asks for it. Its own
variables hold: HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from model.bundle import (
    MANIFEST,
    OPTIONAL_FILES,
    REQUIRED_FILES,
    Bundle,
    BundleError,
    listed_files,
    sha256_of,
)
from model.bundle_address import BundleAddress, HubAddress
from model.model_card import CARD, SHEET, model_card, prototype_sheet

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)

WRITE_TIMEOUT_S = 60.0
"""Without a word from the hub after something was sent to it. Reading waits for HF_HUB_DOWNLOAD_TIMEOUT."""
MAX_RESTARTS = 2
"""Of a download from its first byte. The library begins anew for ever where each breaks off in the middle."""
EXTRA = "pip install 'patronus-server[hub]'"

Told = Callable[[str, int, int], None]
"""Hears of a file's name, the bytes that have come, and its size (0 where that is not known)."""


class HubError(BundleError):
    """The hub has no such bundle, does not give or take it, or what it gave is damaged."""


class HubUnreachableError(HubError):
    """No answer from the hub, and nothing of the bundle in the cache."""


def open_bundle(address: BundleAddress, hub: Hub | None = None) -> Bundle:
    """The verified bundle at an address, fetched first where it is one of the hub. Raises BundleError."""
    if isinstance(address, Path):
        return Bundle.load(address)
    fetched = (hub or Hub()).fetch(address)
    try:
        bundle = Bundle.load(fetched.directory)
    except BundleError as error:
        raise HubError(f"{address}: {error}") from error
    return dataclasses.replace(bundle, source=str(fetched.address))


def pull(
    address: HubAddress, directory: Path, hub: Hub | None = None, told: Told = lambda *_: None
) -> Bundle:
    """Make `directory`, which is new or holds it already, the bundle at `address`.

    What else is in it is seen before anything is fetched, and never replaced. Raises BundleError or OSError.
    """
    is_free = not directory.exists() or (directory.is_dir() and not any(directory.iterdir()))
    held = None if is_free else _digest(directory)
    other = HubError(f"{directory} exists and is something else: name another directory")
    if not is_free and held is None:
        raise other
    fetched = (hub or Hub()).fetch(address, told)
    try:
        bundle = Bundle.load(fetched.directory)
    except BundleError as error:
        raise HubError(f"{address}: {error}") from error
    if not is_free:
        if held != bundle.digest:
            raise other
    else:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
            whole = Path(scratch) / "bundle"
            whole.mkdir()
            for file in (MANIFEST, *listed_files(fetched.directory)):
                shutil.copyfile(fetched.directory / file, whole / file)
            Bundle.load(whole)
            whole.rename(directory)  # over an empty directory too
    return dataclasses.replace(bundle, directory=directory, source=str(fetched.address))


@dataclass(frozen=True)
class Fetched:
    """A bundle's files in the cache, and the commit that they are of."""

    directory: Path
    address: HubAddress


@dataclass(frozen=True)
class Hub:
    """endpoint, token, cache: in place of HF_ENDPOINT, HF_TOKEN and HF_HOME."""

    endpoint: str | None = None
    token: str | None = field(default=None, repr=False)
    cache: Path | None = None

    def fetch(self, address: HubAddress, told: Told = lambda *_: None) -> Fetched:
        """Bring a bundle's manifest and the files that it lists into the cache, each with its right digest.

        Nothing else of the repository is asked for, and nothing at all where the revision is a commit that
        the cache has. What is damaged is fetched anew, once. Raises HubError.
        """
        library = _library(address)
        api = self._api(library)
        with _explained(address):
            commit = api.resolve_revision(address.repository, revision=address.revision, cache_dir=self.cache)
        pinned = address.at(commit.resolved)

        @functools.cache
        def knock() -> None:
            """Quick to fail, where a download tries again for minutes: is the hub there, and may we?"""
            api.model_info(pinned.repository, revision=pinned.revision)

        file = functools.partial(self._file, library, pinned, knock=knock, told=told)
        directory = file(MANIFEST).parent
        try:
            files = listed_files(directory)
        except BundleError:
            directory = file(MANIFEST, anew=True).parent
            try:
                files = listed_files(directory)
            except BundleError as error:
                raise HubError(f"{address}: {error}") from error
        for name, expected in files.items():
            if sha256_of(file(name)) != expected:
                found = sha256_of(file(name, anew=True))
                if found != expected:
                    raise HubError(f"{pinned}: {name} has sha256 {found}, the manifest says {expected}")
        return Fetched(directory, pinned)

    def push(
        self,
        bundle: Bundle,
        address: HubAddress,
        *,
        license: str | None = None,
        is_private: bool = False,
        with_card: bool = True,
        with_progress: bool = False,
    ) -> HubAddress:
        """Make the repository hold this bundle, and tell at which commit it does. Raises HubError, OSError.

        The repository, and the branch that the address may name, are created where they are not there;
        `is_private` refuses one that is there and public. A file of a former bundle that this one lacks is
        deleted; others are left alone. `with_progress` lets the library draw on stderr how far the files are.
        """
        if address.is_commit:
            raise HubError(f"{address}: a commit cannot be written to, name a branch or none")
        library = _library(address)
        api, repository = self._api(library), address.repository
        if library.is_offline_mode():
            raise HubUnreachableError(f"{address}: HF_HUB_OFFLINE is set")
        contents: dict[str, Path | bytes] = {
            file: bundle.path(file) for file in (*listed_files(bundle.directory), MANIFEST)
        }
        if with_card:
            contents[CARD] = model_card(bundle, address, license=license).encode()
            if bundle.pictures is not None:
                contents[SHEET] = prototype_sheet(bundle.pictures)
        with _explained(address, is_push=True), _progress(library, is_shown=with_progress):
            api.create_repo(repository, private=is_private or None, exist_ok=True)
            if is_private and not api.model_info(repository).private:
                raise HubError(f"{address}: the repository is public: make it private on its page first")
            if address.revision is not None:
                api.create_branch(repository, branch=address.revision, exist_ok=True)
            there = api.model_info(repository, revision=address.revision)
            stale = {file.rfilename for file in there.siblings or ()} & {*REQUIRED_FILES, *OPTIONAL_FILES}
            operations: list[Any] = [
                library.CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
                for name, content in contents.items()
            ]
            operations += [
                library.CommitOperationDelete(path_in_repo=name) for name in sorted(stale - contents.keys())
            ]
            done = api.create_commit(
                repository,
                operations,
                commit_message=f"{bundle.name} {bundle.digest[:12]}",
                revision=address.revision,
            )
        return address.at(done.oid)

    def _api(self, library: ModuleType) -> HfApi:
        api: HfApi = library.HfApi(endpoint=self.endpoint, token=self.token)
        return api

    def _file(
        self,
        library: ModuleType,
        pinned: HubAddress,
        name: str,
        *,
        knock: Callable[[], None],
        told: Told,
        anew: bool = False,
    ) -> Path:
        """One file in the cache, of a commit. Raises HubError."""
        options: dict[str, Any] = {"revision": pinned.revision, "cache_dir": self.cache}
        if not anew:
            known = library.try_to_load_from_cache(pinned.repository, name, **options)
            if isinstance(known, str) and os.path.exists(known):
                return Path(known)
        with _explained(pinned, file=name):
            knock()
            log.info("fetching %s of %s", name, pinned)
            return Path(
                library.hf_hub_download(
                    pinned.repository,
                    name,
                    **options,
                    endpoint=self.endpoint,
                    token=self.token,
                    force_download=anew,
                    tqdm_class=functools.partial(Arrival, pinned, name, told),
                )
            )


class Arrival:
    """What the library takes for a progress bar: tells of bytes, and ends a download that does not end."""

    def __init__(
        self, address: HubAddress, name: str, told: Told, *, total: int | None = None, **_: Any
    ) -> None:
        self._address = address
        self._name = name
        self._told = told
        self._total = total or 0
        self._num_here = 0
        self._num_restarts = 0

    def __enter__(self) -> Arrival:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, n: float | None = 1) -> None:
        """n below 0: what had come is worth nothing, it begins anew."""
        self._num_here += int(n or 0)
        self._num_restarts += (n or 0) < 0
        if self._num_restarts > MAX_RESTARTS:
            raise HubError(f"{self._address}: {self._name} breaks off again and again")
        if self._num_here > self._total > 0:
            raise HubError(f"{self._address}: {self._name} is longer than the {self._total} bytes announced")
        self._told(self._name, self._num_here, self._total)

    def close(self) -> None:
        pass


@functools.cache
def _bounded(library: ModuleType) -> None:
    """Let no call wait for ever: the library asks for most things without a time limit."""
    import httpx2

    def bound(request: httpx2.Request) -> None:
        limit_s = (
            float(library.constants.HF_HUB_DOWNLOAD_TIMEOUT)
            if request.method in ("GET", "HEAD")
            else WRITE_TIMEOUT_S
        )
        given = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            kind: limit_s if given.get(kind) is None else given[kind]
            for kind in ("connect", "read", "write", "pool")
        }

    hooks = library.get_session().event_hooks
    hooks = {**hooks, "request": [*hooks["request"], bound]}
    library.set_client_factory(lambda: httpx2.Client(event_hooks=hooks, follow_redirects=True, timeout=None))


def _library(address: HubAddress) -> ModuleType:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise HubError(
            f"{address} needs the package {error.name}, which is not installed: {EXTRA}"
        ) from error
    _bounded(huggingface_hub)
    return huggingface_hub


@contextmanager
def _progress(library: ModuleType, *, is_shown: bool) -> Iterator[None]:
    """With the library's own bars or without; left to itself it draws them in pipes and logs too."""
    were_disabled = library.utils.are_progress_bars_disabled()
    if not is_shown:
        library.utils.disable_progress_bars()
    try:
        yield
    finally:
        if not (is_shown or were_disabled):
            library.utils.enable_progress_bars()


@contextmanager
def _explained(address: HubAddress, *, file: str | None = None, is_push: bool = False) -> Iterator[None]:
    """Whatever the library raises as a HubError of one sentence."""
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        raise _reason(error, address, file=file, is_push=is_push) from error


def _reason(error: BaseException, address: HubAddress, *, file: str | None, is_push: bool) -> HubError:
    import httpx2
    from huggingface_hub import errors, get_token

    what = f"{address}" if file is None else f"{address}: {file}"
    token = (
        "or its token (HF_TOKEN) may not read it"
        if get_token()
        else "or is private: set HF_TOKEN to a token that may read it"
    )
    match error:
        case HubError():
            return error
        case errors.GatedRepoError():
            return HubError(
                f"{what}: the repository asks for consent: request access on its page, set HF_TOKEN"
            )
        case errors.RepositoryNotFoundError() if not is_push:
            return HubError(f"{what}: the repository does not exist, {token}")
        case errors.RevisionNotFoundError():
            return HubError(f"{what}: the repository has no such revision")
        case errors.RemoteEntryNotFoundError():
            return HubError(f"{what}: the repository has no such file, it holds no whole bundle")
        case errors.HfHubHTTPError():
            return _refusal(error.response.status_code, error.server_message, what, token, is_push=is_push)
        case errors.OfflineModeIsEnabled():
            return HubUnreachableError(f"{what}: HF_HUB_OFFLINE is set, and the cache does not hold it")
        case httpx2.TimeoutException():
            return HubUnreachableError(f"{what}: the hub does not answer in time")
        case httpx2.RemoteProtocolError():
            return HubUnreachableError(f"{what}: the connection breaks off: {_line(error)}")
        case httpx2.TransportError() | ConnectionError():
            return HubUnreachableError(f"{what}: the hub cannot be reached: {_line(error)}")
        case errors.RevisionResolutionError() | errors.LocalEntryNotFoundError() | RuntimeError():
            if error.__cause__ is not None:  # which says more
                return _reason(error.__cause__, address, file=file, is_push=is_push)
    return HubError(f"{what}: {_line(error)}")


def _refusal(status: int, said: str | None, what: str, token: str, *, is_push: bool) -> HubError:
    detail = f" ({said.splitlines()[0]})" if said else ""
    if status in (401, 403, 404):
        if is_push:
            return HubError(
                f"{what}: the hub refuses it{detail}: set HF_TOKEN to a token that may write there"
            )
        return HubError(f"{what}: the hub refuses it{detail}: the repository does not exist, {token}")
    if status >= 500 or status in (408, 429):
        return HubUnreachableError(f"{what}: the hub answers {status}{detail}: try again later")
    return HubError(f"{what}: the hub answers {status}{detail}")


def _line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return next((line.strip() for line in lines if line.strip()), type(error).__name__)


def _digest(directory: Path) -> str | None:
    try:
        return Bundle.load(directory).digest
    except BundleError:
        return None
