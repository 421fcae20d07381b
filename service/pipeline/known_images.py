"""Images whose encoding or x_T was computed before, or is being computed for somebody else."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from model.bundle import Bundle
from model.schedule import NoiseSchedule
from model.transforms import Pixels, to_x_0
from service.cache.cache import Cache
from service.cache.single_flight import SingleFlight
from service.engine.async_engine import AsyncEngine
from service.engine.engine_core import EngineCore
from service.engine.jobs import DenoiseJob, EncodeJob, OnStep
from service.images import image_id
from service.pipeline.errors import UnknownImageError
from service.pipeline.progress import Followers
from service.pipeline.request_context import request_admission, request_priority
from service.pipeline.round_trip import Noised, RoundTrip, round_trip
from service.spans import span

Float32 = npt.NDArray[np.float32]

T = TypeVar("T")


@dataclass(frozen=True)
class Encoding:
    """One image read: activations (m,), similarity_maps (m, h, w), and whether the cache knew it."""

    pixels: Pixels
    image_id: str
    activations: Float32
    similarity_maps: Float32
    cached: bool


class KnownImages:
    """Encodes and inverts images of one bundle; what is kept is not computed, and nothing twice at once.

    Work that several requests wait for has no deadline of its own: it ends when none of them waits.
    """

    def __init__(self, bundle: Bundle, engine: AsyncEngine, cache: Cache, core: EngineCore | None) -> None:
        self._bundle = bundle
        self._engine = engine
        self._cache = cache
        self._core = core
        self._schedule = NoiseSchedule.from_config(bundle.config.schedule)
        self._encodings: SingleFlight[bytes] = SingleFlight()
        self._encode_jobs: SingleFlight[dict[str, bytes]] = SingleFlight()
        self._encode_job_numbers = count()
        self._inversions: SingleFlight[bytes] = SingleFlight()
        self._inversion_followers: WeakValueDictionary[str, Followers] = WeakValueDictionary()

    async def encode(self, images: Sequence[Pixels]) -> list[Encoding]:
        """Activations and similarity maps of images (C, H, W), known ones from the cache."""
        names = [image_id(pixels) for pixels in images]
        distinct = dict(zip(names, images, strict=True))
        found: dict[str, Encoding] = {}
        values = await self._cache.get_many("encode", list(distinct))
        for name, value in zip(distinct, values, strict=True):
            if value is not None and len(value) == self._encoding_bytes:
                found[name] = self._unpacked(distinct[name], name, value, cached=True)
            elif value is not None:
                self._cache.lying("encode")
        unknown = {name: pixels for name, pixels in distinct.items() if name not in found}
        for name, value in (await self._encode_once(unknown)).items():
            found[name] = self._unpacked(unknown[name], name, value, cached=False)
        return [found[name] for name in names]

    async def remember(self, images: Sequence[Pixels]) -> None:
        """Keep images so that `recall` finds them by their image_id."""
        await self._cache.set_many("image", [(image_id(pixels), pixels.tobytes()) for pixels in images])

    async def recall(self, name: str) -> Pixels:
        """The pixels that were given `name` as their image_id. Raises UnknownImageError."""
        value = await self._cache.get("image", name)
        shape = self._bundle.config.image.shape
        if value is not None and len(value) == int(np.prod(shape)):
            pixels = np.frombuffer(value, np.uint8).reshape(shape)
            if image_id(pixels) == name:
                return pixels
        if value is not None:
            self._cache.lying("image")
        raise UnknownImageError(f"image_id {name[:64]} is not kept here: send the image again")

    async def invert(
        self, source: Encoding, steps: int, on_step: OnStep | None, deadline: float, steps_after: int
    ) -> Float32:
        """x_T (C, H, W) from which `steps` DDIM steps under the image's own s lead back to it.

        Raises DeadlineExceededError at once where it and `steps_after` more cannot be done in time.
        """
        trip = round_trip(self._schedule, steps)
        return (await self.invert_along(trip, source, on_step, deadline, steps_after)).x

    async def invert_along(
        self, trip: RoundTrip, source: Encoding, on_step: OnStep | None, deadline: float, steps_after: int
    ) -> Noised:
        """Where the way back of `trip` starts, so that the image's own s leads to it again.

        Raises DeadlineExceededError as `invert` does.
        """
        key = f"{trip.name}:{source.image_id}"
        shape = (1 + trip.has_memory, *source.pixels.shape)
        with span("invert", steps=len(trip.there)):
            value = await self._cache.get("invert", key)
            if value is not None and len(value) != int(np.prod(shape)) * 4:
                self._cache.lying("invert")
                value = None
            if value is None:
                self._engine.check_time(len(trip.there) + steps_after, deadline, self._core)
                # Not shared with the less urgent, behind whose jobs it would wait.
                flight = f"{request_priority.get()}:{key}"
                followers = self._inversion_followers.setdefault(flight, Followers())
                with followers.joined_by(on_step):
                    value = await self._inversions.run(
                        flight, lambda: self._invert_and_keep(source, trip, key, followers)
                    )
        states = np.frombuffer(value, np.float32).reshape(shape)
        return Noised(states[0], states[1] if trip.has_memory else None)

    async def _encode_once(self, images: dict[str, Pixels]) -> dict[str, bytes]:
        """Packed encodings by image_id; those that nobody is encoding yet are one job."""
        job_name = str(next(self._encode_job_numbers))
        ours: dict[str, Pixels] = {}

        async def encoded(name: str) -> bytes:
            ours[name] = images[name]  # all of ours are, before the event loop comes to begin the job
            job = await self._encode_jobs.run(job_name, lambda: self._encode_and_keep(ours))
            return job[name]

        flights = [self._encodings.run(name, partial(encoded, name)) for name in images]
        return dict(zip(images, await together(flights), strict=True))

    async def _encode_and_keep(self, images: dict[str, Pixels]) -> dict[str, bytes]:
        x_0 = to_x_0(np.stack(list(images.values())))
        result = await self._engine.encode(EncodeJob(x_0, admission=request_admission()), self._core)
        packed = {
            name: s.astype(np.float32).tobytes() + maps.astype(np.float32).tobytes()
            for name, s, maps in zip(images, result.activations, result.similarity_maps, strict=True)
        }
        await self._cache.set_many("encode", list(packed.items()))
        return packed

    async def _invert_and_keep(
        self, source: Encoding, trip: RoundTrip, key: str, followers: Followers
    ) -> bytes:
        job = DenoiseJob(
            to_x_0(source.pixels)[None],
            source.activations[None],
            trip.there,
            (0,),
            admission=request_admission(),
            priority=request_priority.get(),
            on_step=followers.tell,
        )
        ended = await self._engine.denoise(job, self._core)
        start = trip.turned(ended.x[0], ended.memory[0])
        states = [start.x] if start.memory is None else [start.x, start.memory]
        value = np.stack(states).astype(np.float32).tobytes()
        await self._cache.set("invert", key, value)
        return value

    @property
    def _encoding_bytes(self) -> int:
        height, width = self._bundle.config.grid_shape
        return 4 * self._bundle.config.num_prototypes * (1 + height * width)

    def _unpacked(self, pixels: Pixels, name: str, value: bytes, *, cached: bool) -> Encoding:
        m = self._bundle.config.num_prototypes
        numbers = np.frombuffer(value, np.float32)
        maps = numbers[m:].reshape(m, *self._bundle.config.grid_shape)
        return Encoding(pixels, name, numbers[:m], maps, cached)


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, in order; when one fails or the caller leaves, the others are cancelled."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
