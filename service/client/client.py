"""The client for programs that wait for their answers."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TypeVar, Unpack

import httpx

from service.client import calls, results
from service.client.calls import Call, Edit
from service.client.errors import PatronusError, UnreachableError
from service.client.events import Progress
from service.client.exchange import (
    EVENTS,
    GRACE_S,
    LIMITS,
    EventReader,
    arguments_of,
    base_headers,
    base_url,
    read_answer,
    unreachable,
)
from service.client.images import Source
from service.client.retrying import Attempts, Retries

T = TypeVar("T")

DEFAULT_TIMEOUT_S = 120.0


class Client:
    """One service, over connections that are kept; close it, or use it in a `with`. Threads may share it.

    timeout_s: what a call may take, its retries included; the service is told what is left of it. api_key:
    where the service wants one. transport: httpx's, in place of a network.

    Every call raises PatronusError; see `service.client.errors`. Raises ValueError for an address or a key
    that none can be.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._retries = retries or Retries()
        self._http = httpx.Client(
            base_url=base_url(url), headers=base_headers(api_key), transport=transport, limits=LIMITS
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def encode(
        self, *images: Source, maps: bool = False, **options: Unpack[calls.Common]
    ) -> results.Encodings:
        """Activations of one or more images, and where each prototype is most present."""
        return self.send(calls.encode(*images, maps=maps, **options))

    def generate(self, **options: Unpack[calls.GenerateOptions]) -> results.Generation:
        """Sample images under an image's activations, given ones, or the prior's."""
        return self.send(calls.generate(**options))

    def trace(self, **options: Unpack[calls.TraceOptions]) -> results.Trace:
        """When and where each prototype appears while images are sampled."""
        return self.send(calls.trace(**options))

    def edit(
        self, image: Source, edits: Sequence[Edit], **options: Unpack[calls.EditOptions]
    ) -> results.Edited:
        """Change prototypes in an image and keep the rest."""
        return self.send(calls.edit(image, edits, **options))

    def visualize(
        self, *prototypes: int | str, **options: Unpack[calls.VisualizeOptions]
    ) -> results.Visualizations:
        """What prototypes stand for: each enhanced in several images, and the one in which it rose most."""
        return self.send(calls.visualize(*prototypes, **options))

    def locate(self, image: Source, **options: Unpack[calls.LocateOptions]) -> results.Locations:
        """Where prototypes are in an image."""
        return self.send(calls.locate(image, **options))

    def extrapolate(
        self, prototype: int | str, **options: Unpack[calls.ExtrapolateOptions]
    ) -> results.Extrapolation:
        """One prototype swept over values, all else kept."""
        return self.send(calls.extrapolate(prototype, **options))

    def interpolate(
        self, first: Source, second: Source, **options: Unpack[calls.InterpolateOptions]
    ) -> results.Interpolation:
        """From one image to another, or between those of two image_ids."""
        return self.send(calls.interpolate(first, second, **options))

    def rename(
        self, which: int | str, name: str | None, **options: Unpack[calls.Common]
    ) -> results.PrototypeDetails:
        """Name a prototype; None: what the bundle calls it."""
        return self.send(calls.rename(which, name, **options))

    def diagnose(self, **options: Unpack[calls.DiagnoseOptions]) -> results.Diagnosis:
        """What else changes when one prototype or attribute is changed."""
        return self.send(calls.diagnose(**options))

    def diagnosis_page(self, **options: Unpack[calls.DiagnoseOptions]) -> str:
        """The same as an HTML page that needs nothing else."""
        return self.send(calls.diagnosis_page(**options))

    def prototypes(self, **options: Unpack[calls.Common]) -> results.Prototypes:
        """All prototypes: statistics, names, pictures, emergence."""
        return self.send(calls.prototypes(**options))

    def prototype(self, which: int | str, **options: Unpack[calls.Common]) -> results.PrototypeDetails:
        """One prototype by index or name, with its nearest training patches."""
        return self.send(calls.prototype(which, **options))

    def references(self, **options: Unpack[calls.Common]) -> results.References:
        """The test images that the model's bundle keeps: pictures to try things on."""
        return self.send(calls.references(**options))

    def models(self) -> results.Models:
        """The models that are served, the default first."""
        return self.send(calls.models())

    def version(self) -> results.Version:
        """The program, its backend, and its models."""
        return self.send(calls.version())

    def health(self) -> results.Health:
        """Whether the service lives; an unhealthy one is a result too."""
        return self.send(calls.health())

    def readiness(self) -> results.Health:
        """Whether it takes requests, and why not."""
        return self.send(calls.readiness())

    def send(self, call: Call[T]) -> T:
        """The result of a call, after as many attempts as `Retries` and the deadline allow."""
        attempts = self._attempts(call)
        while True:
            try:
                return self._attempt(call, attempts)
            except PatronusError as error:
                time.sleep(attempts.wait_after(error))

    def stream(self, call: Call[T]) -> Generator[Progress | T, None, None]:
        """Progress while the service works on a call, at last its result; whoever stops reading cancels it.

        It is tried again only until the first event has come.
        """
        attempts = self._attempts(call)
        while True:
            has_begun = False
            try:
                with closing(self._attempt_stream(call, attempts)) as events:
                    for event in events:
                        has_begun = True
                        yield event
                return
            except PatronusError as error:
                if has_begun:
                    raise
                time.sleep(attempts.wait_after(error))

    def _attempt(self, call: Call[T], attempts: Attempts) -> T:
        body = bytearray()
        try:
            with self._http.stream(**arguments_of(call, attempts)) as response:
                for chunk in response.iter_bytes():
                    body += chunk
                    attempts.check(GRACE_S)
        except httpx.TimeoutException as error:
            attempts.check()  # raises where that was it; else it was a connection that did not come
            raise unreachable(error) from error
        except httpx.HTTPError as error:
            raise unreachable(error) from error
        return read_answer(call, response, bytes(body))

    def _attempt_stream(self, call: Call[T], attempts: Attempts) -> Generator[Progress | T, None, None]:
        try:
            with self._http.stream(**arguments_of(call, attempts, accept=EVENTS)) as response:
                reader = EventReader(call, response)
                if response.status_code != 200 or not reader.is_stream:
                    yield read_answer(call, response, response.read())
                    return
                for chunk in response.iter_bytes():
                    yield from reader.feed(chunk)
                    if reader.is_over:
                        return
                    attempts.check(GRACE_S)
        except httpx.TimeoutException as error:
            attempts.check()
            raise unreachable(error) from error
        except httpx.HTTPError as error:
            raise unreachable(error) from error
        raise UnreachableError("the connection ended before the result")

    def _attempts(self, call: Call[T]) -> Attempts:
        timeout_s = self._timeout_s if call.timeout_s is None else call.timeout_s
        return Attempts(self._retries, timeout_s, is_idempotent=call.is_idempotent)
