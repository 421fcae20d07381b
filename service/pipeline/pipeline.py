"""Encode, generate, edit: each use case as the steps it consists of."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from model.bundle import Bundle
from model.config import PriorConfig
from model.prototype_boxes import PrototypeBoxes
from model.receptive_field import Box
from model.samplers import (
    NO_CLIP,
    Sampler,
    SamplerTable,
    ddim,
    dpmpp_2m,
    sampler_table,
)
from model.schedule import NoiseSchedule
from model.transforms import Pixels, from_x_0, to_x_0
from service.cache.cache import Cache
from service.engine.async_engine import AsyncEngine
from service.engine.engine_core import EngineCore
from service.engine.jobs import DenoiseJob, EncodeJob, EncodeResult, Network, OnStep, Timing
from service.pipeline.editing import EditedImage, EditPlan, decoupling_of
from service.pipeline.edits import (
    LARGEST_ACTIVATION,
    Clamping,
    Edit,
    EditLoop,
    apply_edits,
    named_targets,
)
from service.pipeline.errors import PipelineError
from service.pipeline.known_images import Encoding, KnownImages, together
from service.pipeline.measured import REMEDY, reference_images, statistics_of
from service.pipeline.progress import Followers, ProgressFeed, Stage
from service.pipeline.prototype_names import PrototypeNames
from service.pipeline.randomness import Stream, generator, initial_noise, sample_seeds, step_noise_seed
from service.pipeline.request_context import request_admission, request_priority
from service.pipeline.round_trip import Inversion, round_trip
from service.pipeline.trace import Trace, Tracer
from service.spans import span

Float32 = npt.NDArray[np.float32]

T = TypeVar("T")

Origin = Literal["image", "request", "prior", "resampled_from_training_statistics"]

MAX_TRACED_STEPS = 10_000
"""Of all images of one request: each step's activations go into the answer."""

MAX_TABLES = 64
"""Sampler tables that are kept; one of 1000 steps takes 72 kB."""

IMAGE_RANGE = 1.0
"""|x̂₀| is clipped to this when sampling from noise, as pixels cannot be outside [-1, 1]."""


@dataclass(frozen=True)
class GeneratedImage:
    """pixels (C, H, W); asked and achieved activations (m,), the latter re-encoded from the pixels."""

    pixels: Pixels
    seed: int
    asked: Float32
    achieved: Float32


@dataclass(frozen=True)
class Generation:
    images: list[GeneratedImage]
    clamped: list[Clamping]
    activations_from: Origin
    timing: Timing
    trace: Trace | None


@dataclass(frozen=True, eq=False)
class Starts:
    """n samples before their first step: x_T (n, C, H, W), activations (n, m), and the table for all."""

    x_T: Float32
    activations: Float32
    activations_from: Origin
    table: SamplerTable


@dataclass(frozen=True)
class GenerateRequest:
    """What to sample: under whose activations, changed how, from which x_T, by which sampler.

    `activations` (m,) go before those of `pixels` (C, H, W); with neither, s is sampled from the latent
    prior, or resampled from training statistics where the bundle has no prior. `inverted` starts from the
    noise of `pixels`; `start` and `inversion` are then as in an edit (`round_trip`). `decouple` drives other
    entries against the measured effects of the edits. `is_traced` has x̂₀ encoded after every step, and
    `num_previews` of them kept.
    """

    pixels: Pixels | None
    activations: Float32 | None
    edits: Sequence[Edit]
    extrapolate: bool
    num_images: int
    steps: int
    sampler: Sampler
    eta: float
    seed: int
    inverted: bool
    is_traced: bool = False
    num_previews: int = 0
    decouple: bool = False
    start: int | None = None
    inversion: Inversion = "ddim"

    @property
    def is_way_back(self) -> bool:
        """Whether it goes an inversion's own way back, and not a sampler's from wherever that ends."""
        return self.inverted and self.sampler == "ddim" and self.eta == 0.0


class Pipeline:
    """The use cases over one bundle, whose networks `core` runs.

    `names`: what its prototypes are called, None for what the bundle calls them; see `under_current_names`.
    Every call may raise PipelineError or EngineError.
    `deadline` is in the engine's clock; work not done by then fails with DeadlineExceededError. `feed` is
    told of every step, for those who want to follow.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: AsyncEngine,
        cache: Cache,
        core: EngineCore | None = None,
        names: PrototypeNames | None = None,
    ) -> None:
        self.bundle = bundle
        self.names = names or PrototypeNames(bundle, None)
        self._core = core
        self._engine = engine
        self._schedule = NoiseSchedule.from_config(bundle.config.schedule)
        self._images = KnownImages(bundle, engine, cache, core)
        self._boxes = PrototypeBoxes(bundle.config)
        self._sampler_table = lru_cache(maxsize=MAX_TABLES)(partial(_sampler_table, self._schedule))

    def under_current_names(self) -> Pipeline:
        """This pipeline with prototypes named as they are now. A request keeps the names it began with."""
        bundle = self.names.bundle()
        if bundle is self.bundle:
            return self
        renamed = copy.copy(self)  # what it works with is shared
        renamed.bundle = bundle
        return renamed

    async def encode(self, images: Sequence[Pixels]) -> list[Encoding]:
        """Activations and similarity maps of images (C, H, W), known ones from the cache."""
        return await self._images.encode(images)

    async def remember(self, images: Sequence[Pixels]) -> None:
        """Keep images so that `recall` finds them by their image_id."""
        await self._images.remember(images)

    async def recall(self, name: str) -> Pixels:
        """The pixels that were given `name` as their image_id. Raises UnknownImageError."""
        return await self._images.recall(name)

    async def generate(
        self, request: GenerateRequest, deadline: float, feed: ProgressFeed | None = None
    ) -> Generation:
        """Sample images under activations that are given, read from an image, or resampled."""
        self._check_generate(request)
        seeds = sample_seeds(request.seed, request.num_images)
        source = None if request.pixels is None else (await self.encode([request.pixels]))[0]
        decoupling = None
        if request.decouple and request.edits:
            targets = list(named_targets(self.bundle, request.edits).values())
            decoupling = decoupling_of(self.bundle, targets)
        before, origin, waited = await self._asked(request, source, seeds, deadline)
        asked, clamped = await self.applied(request.edits, before, extrapolate=request.extrapolate)
        driven = asked
        if decoupling is not None:  # one of thousands of images, each with its bounds, takes some seconds
            driven = await asyncio.to_thread(decoupling.driven, before, asked, largest=LARGEST_ACTIVATION)
        clip = NO_CLIP if request.inverted else IMAGE_RANGE
        table = self._sampler_table(request.sampler, request.steps, request.eta, clip)
        memory = None
        if request.inverted:
            assert source is not None  # checked above
            trip = round_trip(self._schedule, request.steps, start=request.start, inversion=request.inversion)
            table = trip.back if request.is_way_back else table
            listener = _listener(feed, Stage.INVERT, len(trip.there))
            begin = await self._images.invert_along(trip, source, listener, deadline, len(table))
            x, memory = begin.copies(request.num_images)
        else:
            x = np.stack([initial_noise(seed, self.bundle.config.image.shape) for seed in seeds])
        denoise = partial(self._denoise, table, x, driven, seeds, deadline, memory=memory)
        listener = _listener(feed, Stage.GENERATE, len(table))
        trace = None
        if request.is_traced:
            tracer = self._tracer(request.num_images, table, request.num_previews, deadline)
            (pixels, timing), trace = await _traced(tracer, denoise, listener)
        else:
            pixels, timing = await denoise(on_step=listener)
        achieved = await self._activations(pixels)
        images = [GeneratedImage(*parts) for parts in zip(pixels, seeds, asked, achieved, strict=True)]
        return Generation(images, clamped, origin, waited + timing, trace)

    async def edit(
        self, pixels: Pixels, plan: EditPlan, deadline: float, feed: ProgressFeed | None = None
    ) -> EditedImage:
        """Invert an image under its own s, then regenerate it with s edited, and with s as it was.

        The edited one is generated up to `plan.rounds` times, each correcting the last (`EditLoop`). For
        `feed`, image 0 is the edited one, 1 the reconstruction.
        """
        trip = plan.trip
        source = (await self.encode([pixels]))[0]
        asked, clamped = await self.applied(
            plan.edits,
            source.activations,
            extrapolate=plan.extrapolate,
            held_attributes=plan.names_held,
        )
        listener = _listener(feed, Stage.INVERT, len(trip.there))
        start = await self._images.invert_along(trip, source, listener, deadline, len(trip.back))

        async def regenerated(*s: Float32, stage: Stage) -> tuple[Pixels, list[Float32], Timing]:
            with span(stage.value):
                x, memory = start.copies(len(s))
                pixels, timing = await self._denoise(
                    trip.back,
                    x,
                    np.stack(s),
                    (0,) * len(s),
                    deadline,
                    on_step=_listener(feed, stage, len(trip.back)),
                    memory=memory,
                )
                return pixels, await self._activations(pixels), timing

        first = asked
        if plan.decoupling is not None:
            first = plan.decoupling.driven(source.activations, asked, largest=LARGEST_ACTIVATION)
        both, encoded, timing = await regenerated(first, source.activations, stage=Stage.GENERATE)
        loop = EditLoop(
            asked,
            plan.targets,
            plan.held,
            plan.spread,
            first,
            before=source.activations,
            held_attributes=plan.held_attributes,
        )
        tries = [(both[0], loop.driven, encoded[0])]
        while loop.observe(tries[-1][2]) and len(tries) < plan.rounds:
            driven = loop.driven
            again, (achieved,), more = await regenerated(driven, stage=Stage.CORRECT)
            timing += more
            tries.append((again[0], driven, achieved))
        edited, driven, achieved = tries[loop.best_round]
        return EditedImage(
            plan=plan,
            source=source,
            edited=edited,
            reconstruction=both[1],
            asked=asked,
            driven=driven,
            achieved=achieved,
            rounds=len(tries),
            reconstruction_activations=encoded[1],
            clamped=clamped,
            timing=timing,
        )

    async def applied(
        self,
        edits: Sequence[Edit],
        activations: Float32,
        *,
        extrapolate: bool,
        held_attributes: Sequence[str] = (),
    ) -> tuple[Float32, list[Clamping]]:
        """What `apply_edits` gives, beside the event loop: a thousand edits of attributes take seconds."""
        return await asyncio.to_thread(
            apply_edits,
            self.bundle,
            activations,
            edits,
            extrapolate=extrapolate,
            held_attributes=held_attributes,
        )

    async def starts(
        self,
        sources: Sequence[Pixels],
        seeds: Sequence[int],
        *,
        steps: int,
        deadline: float,
        feed: ProgressFeed | None = None,
    ) -> Starts:
        """Where samples begin: given images with their own x_T, or else one sample for each of `seeds`."""
        self._check_steps(steps)
        if not sources:
            s, origin, _ = await self._sample_activations(seeds, deadline)
            x = np.stack([initial_noise(seed, self.bundle.config.image.shape) for seed in seeds])
            return Starts(x, s, origin, ddim(self._schedule, steps, clip=IMAGE_RANGE))
        encodings = await self.encode(sources)
        inversions = [
            self._images.invert(known, steps, _listener(feed, Stage.INVERT, steps, i), deadline, steps)
            for i, known in enumerate(encodings)
        ]
        x_T = np.stack(await together(inversions))
        activations = np.stack([known.activations for known in encodings])
        return Starts(x_T, activations, "image", ddim(self._schedule, steps))

    async def regenerate(
        self,
        starts: Starts,
        activations: Float32,
        deadline: float,
        *,
        feed: ProgressFeed | None = None,
        prototype: int | None = None,
    ) -> tuple[Pixels, EncodeResult]:
        """All of `starts` under other activations (n, m): pictures (n, C, H, W), and these encoded.

        For pictures that nobody comes back to: the cache is not filled with them. `feed` is told of every
        step, as done for `prototype`.
        """
        seeds = (0,) * len(activations)
        listener = _listener(feed, Stage.GENERATE, len(starts.table), prototype=prototype)
        pixels, _ = await self._denoise(
            starts.table, starts.x_T, activations, seeds, deadline, on_step=listener
        )
        job = EncodeJob(to_x_0(pixels), deadline, request_admission())
        return pixels, await self._engine.encode(job, self._core)

    def seconds_left(self, deadline: float) -> float:
        """Until a deadline in the engine's clock."""
        return deadline - self._engine.deadline_in(0.0)

    def choose_sources(self, count: int, seed: int) -> list[Pixels]:
        """`count` of the reference images, drawn by `seed`. Raises PipelineError beyond their number."""
        references = reference_images(self.bundle)
        if not references:
            raise PipelineError(
                f"the bundle {self.bundle.name!r} keeps no images: send some as `images`, or {REMEDY}"
            )
        if count > len(references):
            raise PipelineError(
                f"num_samples must be 1 to {len(references)}, not {count}: send images for more"
            )
        chosen = generator(seed, Stream.SOURCES).permutation(len(references))[:count]
        return [references[i] for i in chosen]

    def best_box(self, prototype: int, similarity_map: Float32) -> Box:
        """The pixel box of the best-matching cell of one prototype's map (h, w)."""
        return self._boxes.box(prototype, int(similarity_map.argmax()))

    def best_boxes(self, similarity_maps: Float32) -> list[Box]:
        """The same for the maps of all prototypes (m, h, w)."""
        cells = similarity_maps.reshape(len(similarity_maps), -1).argmax(axis=1)
        return [(x0, y0, x1, y1) for x0, y0, x1, y1 in self._boxes.at(np.arange(len(cells)), cells).tolist()]

    def _check_generate(self, request: GenerateRequest) -> None:
        self._check_steps(request.steps)
        named_targets(self.bundle, request.edits)  # before anything is sampled for them
        m = self.bundle.config.num_prototypes
        s = request.activations
        if s is not None and len(s) != m:
            raise PipelineError(f"activations must have {m} entries, not {len(s)}")
        if s is not None and not ((s >= 0.0) & (s <= LARGEST_ACTIVATION + 1e-3)).all():
            raise PipelineError(f"activations must be 0 to {LARGEST_ACTIVATION:.2f}")
        if request.is_traced and request.num_images * request.steps > MAX_TRACED_STEPS:
            raise PipelineError(
                f"a trace takes num_images * steps of at most {MAX_TRACED_STEPS}, "
                f"not {request.num_images * request.steps}"
            )
        if request.eta != 0.0 and request.sampler != "ddim":
            raise PipelineError(f"eta is for sampler ddim only, not {request.sampler}")
        if request.inverted:
            if request.pixels is None:
                raise PipelineError("x_T inverted needs an image or image_id to invert")
            if request.num_images > 1 and request.sampler != "ddpm" and request.eta == 0.0:
                raise PipelineError(
                    "num_images > 1 from one inverted x_T would all be the same: "
                    "use x_T random, sampler ddpm, or eta > 0"
                )
        if (request.start, request.inversion) != (None, "ddim") and not request.is_way_back:
            raise PipelineError(
                "start and inversion are of an image's way into its own noise and back: "
                "they need x_T inverted, sampler ddim, and eta 0"
            )

    def _check_steps(self, steps: int) -> None:
        if not 1 <= steps <= self._schedule.num_timesteps:
            raise PipelineError(f"steps must be 1 to {self._schedule.num_timesteps}, not {steps}")

    async def _asked(
        self, request: GenerateRequest, source: Encoding | None, seeds: Sequence[int], deadline: float
    ) -> tuple[Float32, Origin, Timing]:
        """Activations (n, m) before edits, where they come from, and what the prior took."""
        nothing = Timing(0.0, 0.0)
        if request.activations is not None:
            return np.repeat(request.activations[None], len(seeds), axis=0), "request", nothing
        if source is not None:
            return np.repeat(source.activations[None], len(seeds), axis=0), "image", nothing
        return await self._sample_activations(seeds, deadline)

    async def _sample_activations(
        self, seeds: Sequence[int], deadline: float
    ) -> tuple[Float32, Origin, Timing]:
        """Activations (n, m), each by its own seed: from the prior, or else resampled."""
        if self.bundle.prior is not None:
            s, timing = await self._sample_prior(self.bundle.prior, seeds, deadline)
            return s, "prior", timing
        resample = statistics_of(self.bundle, "sampling without image, image_id or activations").resample
        drawn = [resample(generator(seed, Stream.ACTIVATIONS), 1) for seed in seeds]
        return np.concatenate(drawn), "resampled_from_training_statistics", Timing(0.0, 0.0)

    async def _sample_prior(
        self, prior: PriorConfig, seeds: Sequence[int], deadline: float
    ) -> tuple[Float32, Timing]:
        """Activations (n, m) from the latent prior, each by its own seed."""
        m = prior.num_prototypes
        x = np.stack([initial_noise(seed, (m,), Stream.ACTIVATIONS) for seed in seeds])
        table = dpmpp_2m(NoiseSchedule.from_config(prior.schedule), prior.sampling_steps)
        unconditional = np.zeros((len(seeds), 0), np.float32)
        noise_seeds = (0,) * len(seeds)  # the table adds no noise
        job = DenoiseJob(
            x,
            unconditional,
            table,
            noise_seeds,
            deadline,
            request_admission(),
            network=Network.PRIOR,
            priority=request_priority.get(),
        )
        result = await self._engine.denoise(job, self._core)
        statistics = statistics_of(self.bundle, "the latent prior")
        return statistics.from_scores(result.x), result.timing

    async def _denoise(
        self,
        table: SamplerTable,
        x: Float32,
        s: Float32,
        seeds: Sequence[int],
        deadline: float,
        *,
        on_step: OnStep | None,
        memory: Float32 | None = None,
    ) -> tuple[Pixels, Timing]:
        noise_seeds = tuple(step_noise_seed(seed) for seed in seeds)
        job = DenoiseJob(
            x,
            s.astype(np.float32),
            table,
            noise_seeds,
            deadline,
            request_admission(),
            priority=request_priority.get(),
            on_step=on_step,
            memory=memory,
        )
        result = await self._engine.denoise(job, self._core)
        return from_x_0(result.x), result.timing

    def _tracer(self, num_samples: int, table: SamplerTable, num_previews: int, deadline: float) -> Tracer:
        async def encode(x_0: Float32) -> Float32:
            return (
                await self._engine.encode(EncodeJob(x_0, deadline, request_admission()), self._core)
            ).activations

        return Tracer(
            encode,
            num_samples=num_samples,
            timesteps=table.timesteps,
            num_prototypes=self.bundle.config.num_prototypes,
            num_previews=num_previews,
        )

    async def _activations(self, pixels: Pixels) -> list[Float32]:
        return [known.activations for known in await self.encode(list(pixels))]


def _sampler_table(
    schedule: NoiseSchedule, sampler: Sampler, steps: int, eta: float, clip: float
) -> SamplerTable:
    return sampler_table(sampler, schedule, steps, eta=eta, clip=clip)


def _listener(
    feed: ProgressFeed | None, stage: Stage, steps: int, image: int = 0, prototype: int | None = None
) -> OnStep | None:
    return None if feed is None else feed.listener(stage, steps, first_image=image, prototype=prototype)


async def _traced(
    tracer: Tracer, denoise: Callable[..., Awaitable[T]], listener: OnStep | None
) -> tuple[T, Trace]:
    """What `denoise(on_step=...)` gives, and what the tracer saw; `listener` is told as well."""
    followers = Followers()
    tracing = asyncio.ensure_future(tracer.run())
    try:
        with followers.joined_by(listener), followers.joined_by(tracer.on_step):
            return await denoise(on_step=followers.tell), await tracing
    finally:
        tracing.cancel()
