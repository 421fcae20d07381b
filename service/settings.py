"""Service settings: the only place that reads the environment."""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from model.bundle_address import FORM, BundleAddress, bundle_address
from service.logs import LogFormat
from service.rate_limit import Rate

Backend = Literal["auto", "onnx", "torch"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]
Origins = tuple[str, ...]
Bundles = tuple[BundleAddress, ...]
TuneBatch = Literal["auto", "off"]
Tracing = Literal["off", "otlp", "console"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
ORIGIN = re.compile(r"\*|https?://[A-Za-z0-9.\-\[\]:]+")

PREFIX = "PATRONUS_"
CLIENT_PREFIX = "PATRONUS_CLIENT_"
"""Of variables that are for `service.cli`. Not plainly PATRONUS_API_KEY: that would be a slip for the keys
which close a service, and must stop it."""
FILE = "_FILE"
SECRETS = ("api_keys", "cache_url")
"""Settings that may also be read from the file that PATRONUS_<NAME>_FILE names, as containers get secrets."""
BUNDLES = Path(__file__).parents[1] / "bundles"
SHIPPED_BUNDLE = BUNDLES / "fashion-mnist"
SHIPPED_BUNDLES = (SHIPPED_BUNDLE, BUNDLES / "cartoon-faces")


class SettingsError(ValueError):
    """A setting has a value that the service cannot run with; the message names it."""


@dataclass(frozen=True)
class Settings:
    """Everything an operator can choose, each read from PATRONUS_<NAME>.

    bundle: comma-separated directories, or addresses hf://organisation/name[@revision] of the Hugging Face
    hub, the default model first; backend: auto is onnx; device: auto is cuda
    where there is one; precision: of the denoiser under the torch backend, auto being bf16 on a GPU that has
    it and fp32 elsewhere; cache_url: memory://, redis://[:password@]host:port/db, rediss:// or unix://;
    cache_bytes: bound of the memory cache; cache_ttl_s: life of a value in Redis; cache_timeout_ms: for one
    call of Redis; max_batch: rows in one network call; num_threads: of one call on the CPU, 0 for one on each
    core, or as many as a container's CPU quota is worth; max_queue: samples that may wait; max_steps,
    max_images: per request; max_body_bytes: of one request; max_bodies_bytes: of all requests that run;
    max_pixels: width x height of one uploaded picture; request_timeout_s: after which a request is given up
    with 504; drain_timeout_s: for running requests after SIGTERM; step_timeout_s: a step of the network that
    takes longer is taken for dead, and liveness fails; tune_batch: auto measures at start which batch up to
    max_batch is worth its time, off uses max_batch; api_keys: comma-separated, none means open; rate_limit:
    N/s, N/m or N/h for each key (each address where no keys are set), empty for none; rate_burst: requests
    that may come at once, 0 for N; max_row_steps_per_key: images x steps in flight for each key, 0 for no
    limit; cors_origins: comma-separated, none means that browsers of other origins are refused; host, port:
    where to listen; log_level: the least severe that is written; log_format: auto is json where stderr is no
    terminal; state_dir: where the names given to prototypes are kept; tracing: where spans go, otlp by the
    standard OTEL_* variables, console to stdout.

    In a file of api_keys each key may also have a line of its own.
    """

    bundle: Bundles = SHIPPED_BUNDLES
    backend: Backend = "auto"
    device: Device = "auto"
    precision: Precision = "auto"
    cache_url: str = dataclasses.field(default="memory://", repr=False)
    cache_bytes: int = 256 * 2**20
    cache_ttl_s: int = 24 * 3600
    cache_timeout_ms: int = 50
    max_batch: int = 32
    num_threads: int = 0
    max_queue: int = 1024
    max_steps: int = 1000
    max_images: int = 64
    max_body_bytes: int = 32 * 2**20
    max_bodies_bytes: int = 512 * 2**20
    max_pixels: int = 25_000_000
    request_timeout_s: float = 120.0
    drain_timeout_s: float = 30.0
    step_timeout_s: float = 30.0
    tune_batch: TuneBatch = "auto"
    api_keys: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    rate_limit: str = ""
    rate_burst: int = 0
    max_row_steps_per_key: int = 0
    cors_origins: Origins = ()
    host: str = "127.0.0.1"
    port: int = 8000
    log_level: LogLevel = "INFO"
    log_format: LogFormat = "auto"
    tracing: Tracing = "off"
    state_dir: Path = dataclasses.field(default_factory=lambda: state_directory())

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise SettingsError(f"{PREFIX}{name.upper()} must be {low} to {high}, not {value}")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                allowed = ", ".join(choices)
                raise SettingsError(f"{PREFIX}{name.upper()} must be one of {allowed}, not {value!r}")
        if self.max_bodies_bytes < self.max_body_bytes:
            raise SettingsError(
                f"{PREFIX}MAX_BODIES_BYTES must be at least {PREFIX}MAX_BODY_BYTES, {self.max_body_bytes}, "
                f"not {self.max_bodies_bytes}"
            )
        if self.state_dir == Path():
            raise SettingsError(f"{PREFIX}STATE_DIR must name a directory")
        if not self.bundle:
            raise SettingsError(f"{PREFIX}BUNDLE must name at least one directory")
        if self.precision == "bf16" and self.backend != "torch":
            raise SettingsError(
                f"{PREFIX}PRECISION must be auto or fp32, not 'bf16', "
                f"unless {PREFIX}BACKEND is torch (it is {self.backend})"
            )
        if not self.cache_url.startswith(("memory://", "redis://", "rediss://", "unix://")):
            raise SettingsError(
                f"{PREFIX}CACHE_URL must start with memory://, redis://, rediss:// or unix://"
            )
        if any(not key.isascii() or len(key) < 8 for key in self.api_keys):
            raise SettingsError(f"{PREFIX}API_KEYS must be ASCII, at least 8 characters each")
        for origin in self.cors_origins:
            if not ORIGIN.fullmatch(origin):
                raise SettingsError(
                    f"{PREFIX}CORS_ORIGINS must be * or origins like https://example.org, "
                    f"without a path, not {origin!r}"
                )
        try:
            _ = self.rate
        except ValueError as error:
            raise SettingsError(f"{PREFIX}RATE_LIMIT must be empty or a rate: {error}") from error

    @property
    def rate(self) -> Rate | None:
        """How often one client may ask; None where `rate_limit` is empty."""
        return Rate.parse(self.rate_limit, burst=self.rate_burst) if self.rate_limit else None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read PATRONUS_* variables, and the files that some name.

        Raises SettingsError for a bad value, an unknown name, or a file that holds nothing.
        """
        fields = {PREFIX + item.name.upper(): item for item in dataclasses.fields(cls)}
        known = {*fields, *(PREFIX + name.upper() + FILE for name in SECRETS)}
        unknown = sorted(
            name
            for name in environment
            if name.startswith(PREFIX) and not name.startswith(CLIENT_PREFIX) and name not in known
        )
        if unknown:
            raise SettingsError(f"unknown settings: {', '.join(unknown)} (known: {', '.join(sorted(known))})")
        environment = {**environment, **_secrets(environment)}
        values: dict[str, Any] = {}
        for variable, item in fields.items():
            if variable in environment:
                parse = _PARSERS.get(str(item.type), str)
                try:
                    values[item.name] = parse(environment[variable])
                except ValueError as error:
                    raise SettingsError(
                        f"{variable} must be {_ARTICLES[str(item.type)]}, not {environment[variable]!r}"
                    ) from error
        return cls(**values)


def cache_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where this user's programs keep what they can make again (XDG base directories)."""
    return _user_directory(environment.get("XDG_CACHE_HOME", ""), ".cache")


def state_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where this user's programs keep what nobody can make again (XDG base directories)."""
    return _user_directory(environment.get("XDG_STATE_HOME", ""), ".local/state")


def _user_directory(named: str, below_home: str) -> Path:
    if Path(named).is_absolute():
        return Path(named) / "patronus"
    try:
        return Path.home() / below_home / "patronus"
    except RuntimeError:  # a user without a home, as containers have them
        return Path(tempfile.gettempdir()) / "patronus"


def _secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """What stands in the files that PATRONUS_<NAME>_FILE variables name, by the setting's own variable.

    An empty file is refused: it must not leave the service open, or without its cache. Messages name files,
    never what they hold.
    """
    found = {}
    for name in SECRETS:
        variable = PREFIX + name.upper()
        path = environment.get(variable + FILE)
        if path is None:
            continue
        if variable in environment:
            raise SettingsError(f"set {variable} or {variable}{FILE}, not both")
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:  # ValueError: bytes that are no text
            raise SettingsError(f"{variable}{FILE} names {path!r}, which cannot be read: {error}") from error
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        value = ",".join(lines)
        if not value.strip(", "):
            raise SettingsError(f"{variable}{FILE} names {path!r}, which holds nothing")
        if name != "api_keys" and len(lines) > 1:
            raise SettingsError(
                f"{variable}{FILE} names {path!r}, which must be of one line, not {len(lines)}"
            )
        found[variable] = value
    return found


def _keys(text: str) -> tuple[str, ...]:
    keys = tuple(key.strip() for key in text.split(",") if key.strip())
    if text.strip() and not keys:
        raise ValueError("separators without a key")  # must not leave the service open
    return keys


def _bundles(text: str) -> Bundles:
    return tuple(bundle_address(address.strip()) for address in text.split(",") if address.strip())


_PARSERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "Path": lambda text: Path(text.strip()),
    "Bundles": _bundles,
    "tuple[str, ...]": _keys,
    "Origins": _keys,
    "LogLevel": str.upper,
    "LogFormat": str.lower,
    "Tracing": str.lower,
}
_ARTICLES = {
    "int": "a whole number",
    "float": "a number of seconds",
    "tuple[str, ...]": "keys",
    "Origins": "origins",
    "Bundles": f"directories or {FORM}",
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "backend": get_args(Backend),
    "device": get_args(Device),
    "precision": get_args(Precision),
    "tune_batch": get_args(TuneBatch),
    "log_level": get_args(LogLevel),
    "log_format": get_args(LogFormat),
    "tracing": get_args(Tracing),
}
_RANGES: dict[str, tuple[float, float]] = {
    "cache_bytes": (0, 2**40),
    "cache_ttl_s": (1, 10**8),
    "cache_timeout_ms": (1, 60_000),
    "max_batch": (1, 4096),
    "num_threads": (0, 1024),
    "max_queue": (1, 10**6),
    "max_steps": (1, 100_000),
    "max_images": (1, 4096),
    "max_body_bytes": (1024, 2**33),
    "max_bodies_bytes": (1024, 2**40),
    "max_pixels": (1024, 10**10),
    "request_timeout_s": (0.1, 86_400),
    "drain_timeout_s": (0, 86_400),
    "step_timeout_s": (1, 86_400),
    "rate_burst": (0, 10**9),
    "max_row_steps_per_key": (0, 10**12),
    "port": (0, 65_535),
}
