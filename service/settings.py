"""Service settings: the only place that reads the environment."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

Backend = Literal["auto", "onnx"]
Device = Literal["auto", "cpu", "cuda"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

PREFIX = "PATRONUS_"
SHIPPED_BUNDLE = Path(__file__).parents[1] / "bundles" / "fashion-mnist"


class SettingsError(ValueError):
    """A setting has a value that the service cannot run with; the message names it."""


@dataclass(frozen=True)
class Settings:
    """Everything an operator can choose, each read from PATRONUS_<NAME>.

    max_batch: rows in one network call; max_queue: samples that may wait; max_steps, max_images: per
    request; max_body_bytes: of a request; max_pixels: width x height of one uploaded picture;
    request_timeout_s: after which a request is given up with 504; api_keys: comma-separated, none
    means open; drain_timeout_s: for running requests after SIGTERM.
    """

    bundle: Path = SHIPPED_BUNDLE
    backend: Backend = "auto"
    device: Device = "auto"
    cache_url: str = dataclasses.field(default="memory://", repr=False)
    cache_bytes: int = 256 * 2**20
    cache_ttl_s: int = 24 * 3600
    max_batch: int = 32
    max_queue: int = 1024
    max_steps: int = 1000
    max_images: int = 64
    max_body_bytes: int = 32 * 2**20
    max_pixels: int = 25_000_000
    request_timeout_s: float = 120.0
    drain_timeout_s: float = 30.0
    api_keys: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    host: str = "127.0.0.1"
    port: int = 8000
    log_level: LogLevel = "INFO"

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
        if not self.cache_url.startswith(("memory://", "redis://", "rediss://", "unix://")):
            raise SettingsError(
                f"{PREFIX}CACHE_URL must start with memory://, redis://, rediss:// or unix://"
            )
        if any(not key.isascii() or len(key) < 8 for key in self.api_keys):
            raise SettingsError(f"{PREFIX}API_KEYS must be ASCII, at least 8 characters each")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read PATRONUS_* variables. Raises SettingsError for a bad value or an unknown name."""
        fields = {PREFIX + item.name.upper(): item for item in dataclasses.fields(cls)}
        unknown = sorted(name for name in environment if name.startswith(PREFIX) and name not in fields)
        if unknown:
            raise SettingsError(
                f"unknown settings: {', '.join(unknown)} (known: {', '.join(sorted(fields))})"
            )
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


def _keys(text: str) -> tuple[str, ...]:
    keys = tuple(key.strip() for key in text.split(",") if key.strip())
    if text.strip() and not keys:
        raise ValueError("separators without a key")  # must not leave the service open
    return keys


_PARSERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "Path": Path,
    "tuple[str, ...]": _keys,
    "LogLevel": str.upper,
}
_ARTICLES = {"int": "a whole number", "float": "a number of seconds", "tuple[str, ...]": "keys"}
_CHOICES: dict[str, tuple[str, ...]] = {
    "backend": get_args(Backend),
    "device": get_args(Device),
    "log_level": get_args(LogLevel),
}
_RANGES: dict[str, tuple[float, float]] = {
    "cache_bytes": (0, 2**40),
    "cache_ttl_s": (1, 10**8),
    "max_batch": (1, 4096),
    "max_queue": (1, 10**6),
    "max_steps": (1, 100_000),
    "max_images": (1, 4096),
    "max_body_bytes": (1024, 2**33),
    "max_pixels": (1024, 10**10),
    "request_timeout_s": (0.1, 86_400),
    "drain_timeout_s": (0, 86_400),
    "port": (0, 65_535),
}
