"""Where a command's work is done: by the model in this process, or by a service."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click
import httpx

from model.bundle_address import BundleAddress, HubAddress
from model.hub import Hub
from service.cli.addresses import BundleType, KeyType, UrlType
from service.cli.in_process import in_process
from service.cli.progress import ProgressLine
from service.client import AsyncClient, Call, Client, Progress, Retries, calls
from service.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

LOCAL_URL = "http://in-process"
DAY_S = 86_400.0
ONCE = Retries(max_retries=0)


@dataclass(frozen=True)
class Target:
    """What --bundle, --url and the options beside them say."""

    bundle: BundleAddress | None
    url: str | None
    api_key: str | None
    timeout_s: float
    quiet: bool

    @contextmanager
    def open(self) -> Iterator[Session]:
        """A session with the service, or with the model. Raises SettingsError, BundleError or DeviceError."""
        if self.url is not None:
            with Client(self.url, api_key=self.api_key, timeout_s=self.timeout_s) as client:
                yield Session(client, self.quiet)
            return
        with (
            in_process(self._app()) as transport,
            Client(LOCAL_URL, timeout_s=self.timeout_s, retries=ONCE, transport=transport) as client,
        ):
            yield Session(client, self.quiet)

    @asynccontextmanager
    async def open_for_load(self) -> AsyncIterator[AsyncClient]:
        """A client for many requests at once, none of which is tried again. Raises as `open` does."""
        if self.url is not None:
            async with AsyncClient(
                self.url, api_key=self.api_key, timeout_s=self.timeout_s, retries=ONCE
            ) as client:
                yield client
            return
        app = self._app()
        async with (
            app.router.lifespan_context(app),
            AsyncClient(
                LOCAL_URL, timeout_s=self.timeout_s, retries=ONCE, transport=httpx.ASGITransport(app)
            ) as client,
        ):
            yield client

    def _app(self) -> FastAPI:
        from service.app import create_app  # slow to import, and of no use to who asks a service

        return create_app(fetched(local_settings(self.bundle), quiet=self.quiet))


@dataclass(frozen=True)
class Session:
    client: Client
    quiet: bool

    def ask(self, call: Call[T]) -> tuple[dict[str, Any], T]:
        """The answer as JSON and as a result; meanwhile a line on a terminal says how far it is."""
        with ProgressLine(quiet=self.quiet) as line:
            answer: dict[str, Any] = {}
            for event in self.client.stream(calls.untyped(call)):
                if isinstance(event, Progress):
                    line.follow(event)
                else:
                    answer = event
        return answer, call.read_value(answer)

    def send(self, call: Call[T]) -> tuple[dict[str, Any], T]:
        """The same of a call that is soon answered, or one of many: no line is shown."""
        answer = self.client.send(calls.untyped(call))
        return answer, call.read_value(answer)


def fetched(settings: Settings, *, quiet: bool = False) -> Settings:
    """The same with a hub's bundles in the cache, at the commits that they are of now. Raises HubError."""

    def here(address: BundleAddress) -> BundleAddress:
        if not isinstance(address, HubAddress):
            return address
        with ProgressLine(quiet=quiet) as line:
            return Hub().fetch(address, line.follow_file).address

    return dataclasses.replace(settings, bundle=tuple(map(here, settings.bundle)))


def local_settings(bundle: BundleAddress | None) -> Settings:
    """The settings of the environment, without what is there to protect a service from its clients."""
    settings = dataclasses.replace(
        Settings.from_environment(),
        api_keys=(),
        rate_limit="",
        max_row_steps_per_key=0,
        max_images=4096,
        max_steps=100_000,
        max_queue=100_000,
        max_body_bytes=2**33,
        max_bodies_bytes=2**34,
        request_timeout_s=DAY_S,
        tune_batch="off",  # worth its seconds to who serves for days
    )
    return settings if bundle is None else dataclasses.replace(settings, bundle=(bundle,))


def chosen_url(bundle: BundleAddress | None, url: str | None) -> str | None:
    """The service that a command of click is to ask, None for the model here: --bundle goes before the
    variable. Raises click.UsageError where both are on the command line."""
    if bundle is None:
        return url
    context = click.get_current_context()
    if context.get_parameter_source("url") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("give --bundle or --url, not both")
    return None


def with_target(command: F, *, timeout_s: float = 600.0) -> F:
    """Give a command the options that say where it runs, as its argument `target`.

    timeout_s: of one request, where nobody gives another.
    """

    def wrapped(
        bundle: BundleAddress | None,
        url: str | None,
        api_key: str | None,
        timeout: float,
        quiet: bool,
        **options: Any,
    ) -> Any:
        target = Target(bundle, chosen_url(bundle, url), api_key, timeout, quiet)
        return command(target=target, **options)

    for option in reversed(
        (
            click.option(
                "--bundle",
                type=BundleType(),
                help="run this bundle here, a directory or hf://ORGANISATION/NAME[@REVISION] "
                "(default: PATRONUS_BUNDLE, else the shipped ones)",
            ),
            click.option(
                "--url",
                type=UrlType(),
                envvar="PATRONUS_CLIENT_URL",
                show_envvar=True,
                help="ask the service there instead",
            ),
            click.option(
                "--api-key",
                type=KeyType(),
                envvar="PATRONUS_CLIENT_API_KEY",
                show_envvar=True,
                help="for a service that wants one; rather by the variable, which other users do not see",
            ),
            click.option(
                "--timeout",
                type=click.FloatRange(min=0, min_open=True, max=DAY_S),
                default=timeout_s,
                show_default=True,
                help="seconds for one request, retries included",
            ),
            click.option("-q", "--quiet", is_flag=True, help="no progress on the terminal"),
        )
    ):
        wrapped = option(wrapped)
    wrapped.__doc__ = command.__doc__
    wrapped.__name__ = command.__name__
    parameters = getattr(command, "__click_params__", [])
    wrapped.__click_params__ = [*parameters, *wrapped.__click_params__]  # type: ignore[attr-defined]
    return wrapped  # type: ignore[return-value]
