"""The client for programs that use asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar, Unpack

import httpx

from service.client import calls, results
from service.client.calls import Call, Edit
from service.client.client import DEFAULT_TIMEOUT_S
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


class AsyncClient:
    """As `Client`, for one event loop; `async with` closes it. A call that is cancelled ends there too."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._retries = retries or Retries()
        self._http = httpx.AsyncClient(
            base_url=base_url(url), headers=base_headers(api_key), transport=transport, limits=LIMITS
        )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def encode(
        self, *images: Source, maps: bool = False, **options: Unpack[calls.Common]
    ) -> results.Encodings:
        """Activations of one or more images, and where each prototype is most present."""
        return await self.send(calls.encode(*images, maps=maps, **options))

    async def generate(self, **options: Unpack[calls.GenerateOptions]) -> results.Generation:
        """Sample images under an image's activations, given ones, or the prior's."""
        return await self.send(calls.generate(**options))

    async def trace(self, **options: Unpack[calls.TraceOptions]) -> results.Trace:
        """When and where each prototype appears while images are sampled."""
        return await self.send(calls.trace(**options))

    async def edit(
        self, image: Source, edits: Sequence[Edit], **options: Unpack[calls.EditOptions]
    ) -> results.Edited:
        """Change prototypes in an image and keep the rest."""
        return await self.send(calls.edit(image, edits, **options))

    async def visualize(
        self, *prototypes: int | str, **options: Unpack[calls.VisualizeOptions]
    ) -> results.Visualizations:
        """What prototypes stand for: each enhanced in several images, and the one in which it rose most."""
        return await self.send(calls.visualize(*prototypes, **options))

    async def locate(self, image: Source, **options: Unpack[calls.LocateOptions]) -> results.Locations:
        """Where prototypes are in an image."""
        return await self.send(calls.locate(image, **options))

    async def extrapolate(
        self, prototype: int | str, **options: Unpack[calls.ExtrapolateOptions]
    ) -> results.Extrapolation:
        """One prototype swept over values, all else kept."""
        return await self.send(calls.extrapolate(prototype, **options))

    async def interpolate(
        self, first: Source, second: Source, **options: Unpack[calls.InterpolateOptions]
    ) -> results.Interpolation:
        """From one image to another, or between those of two image_ids."""
        return await self.send(calls.interpolate(first, second, **options))

    async def rename(
        self, which: int | str, name: str | None, **options: Unpack[calls.Common]
    ) -> results.PrototypeDetails:
        """Name a prototype; None: what the bundle calls it."""
        return await self.send(calls.rename(which, name, **options))

    async def diagnose(self, **options: Unpack[calls.DiagnoseOptions]) -> results.Diagnosis:
        """What else changes when one prototype or attribute is changed."""
        return await self.send(calls.diagnose(**options))

    async def diagnosis_page(self, **options: Unpack[calls.DiagnoseOptions]) -> str:
        """The same as an HTML page that needs nothing else."""
        return await self.send(calls.diagnosis_page(**options))

    async def prototypes(self, **options: Unpack[calls.Common]) -> results.Prototypes:
        """All prototypes: statistics, names, pictures, emergence."""
        return await self.send(calls.prototypes(**options))

    async def prototype(self, which: int | str, **options: Unpack[calls.Common]) -> results.PrototypeDetails:
        """One prototype by index or name, with its nearest training patches."""
        return await self.send(calls.prototype(which, **options))

    async def references(self, **options: Unpack[calls.Common]) -> results.References:
        """The test images that the model's bundle keeps: pictures to try things on."""
        return await self.send(calls.references(**options))

    async def models(self) -> results.Models:
        """The models that are served, the default first."""
        return await self.send(calls.models())

    async def version(self) -> results.Version:
        """The program, its backend, and its models."""
        return await self.send(calls.version())

    async def health(self) -> results.Health:
        """Whether the service lives; an unhealthy one is a result too."""
        return await self.send(calls.health())

    async def readiness(self) -> results.Health:
        """Whether it takes requests, and why not."""
        return await self.send(calls.readiness())

    async def send(self, call: Call[T]) -> T:
        """The result of a call, after as many attempts as `Retries` and the deadline allow."""
        attempts = self._attempts(call)
        while True:
            try:
                return await self._attempt(call, attempts)
            except PatronusError as error:
                await asyncio.sleep(attempts.wait_after(error))

    async def stream(self, call: Call[T]) -> AsyncGenerator[Progress | T, None]:
        """Progress while the service works on a call, at last its result; whoever closes it cancels the work.

        It is tried again only until the first event has come. To stop in the middle, read it within
        `contextlib.aclosing`: asyncio closes a generator that is left behind at a moment of its own.
        """
        attempts = self._attempts(call)
        while True:
            has_begun = False
            try:
                attempt = self._attempt_stream(call, attempts)
                async with aclosing(attempt) as events:
                    async for event in events:
                        has_begun = True
                        yield event
                return
            except PatronusError as error:
                if has_begun:
                    raise
                await asyncio.sleep(attempts.wait_after(error))

    async def _attempt(self, call: Call[T], attempts: Attempts) -> T:
        body = bytearray()
        try:
            async with self._http.stream(**arguments_of(call, attempts)) as response:
                async for chunk in response.aiter_bytes():
                    body += chunk
                    attempts.check(GRACE_S)
        except httpx.TimeoutException as error:
            attempts.check()  # raises where that was it; else it was a connection that did not come
            raise unreachable(error) from error
        except httpx.HTTPError as error:
            raise unreachable(error) from error
        return read_answer(call, response, bytes(body))

    async def _attempt_stream(self, call: Call[T], attempts: Attempts) -> AsyncGenerator[Progress | T, None]:
        try:
            async with self._http.stream(**arguments_of(call, attempts, accept=EVENTS)) as response:
                reader = EventReader(call, response)
                if response.status_code != 200 or not reader.is_stream:
                    yield read_answer(call, response, await response.aread())
                    return
                async for chunk in response.aiter_bytes():
                    for event in reader.feed(chunk):
                        yield event
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
