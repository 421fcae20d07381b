"""What is known, or being computed for somebody else, is not computed again; what is not, waits its turn."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from model.bundle import Bundle
from model.transforms import Pixels
from service.cache.cache import Cache
from service.cache.memory_store import MemoryStore
from service.engine.async_engine import AsyncEngine
from service.engine.engine_core import EngineCore
from service.engine.errors import DeadlineExceededError, QueueFullError
from service.engine.fake_runner import FakeRunner
from service.engine.jobs import DenoiseJob, DenoiseResult, Priority, Ticket
from service.engine.runner import StepInputs, StepOutputs
from service.metrics import Metrics
from service.pipeline.editing import EditedImage, plan_edit
from service.pipeline.edits import Edit
from service.pipeline.pipeline import GenerateRequest, Generation, Pipeline
from service.pipeline.request_context import begin_request

Float32 = npt.NDArray[np.float32]

PATIENCE_S = 20.0


class CountingRunner(FakeRunner):
    """Counts the images it encodes, and waits in its steps while `gate` is shut."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.config, max_batch=8, has_prior=bundle.prior is not None)
        self.gate = threading.Event()
        self.gate.set()
        self.encode_calls: list[int] = []

    def encode(self, x_0: Float32) -> tuple[Float32, Float32]:
        self.encode_calls.append(len(x_0))
        return super().encode(x_0)

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        assert self.gate.wait(PATIENCE_S)
        return super().denoise_step(inputs)


class RecordingCore(EngineCore):
    """Remembers the denoise jobs that it was given."""

    def __init__(self, runner: FakeRunner, max_queue: int) -> None:
        super().__init__(runner, max_queue=max_queue, observer=Metrics().engine_observer())
        self.jobs: list[DenoiseJob] = []

    def submit_denoise(self, job: DenoiseJob, ticket: Ticket[DenoiseResult], now: float) -> None:
        self.jobs.append(job)
        super().submit_denoise(job, ticket, now)


@asynccontextmanager
async def pipeline_over(runner: CountingRunner, bundle: Bundle, core: EngineCore) -> AsyncIterator[Pipeline]:
    async with AsyncEngine(core, max_queue=16) as engine:
        try:
            yield Pipeline(
                bundle, engine, Cache(MemoryStore(max_bytes=2**26), namespace="", observer=Metrics())
            )
        finally:
            runner.gate.set()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, PATIENCE_S))


def images_of(bundle: Bundle) -> list[Pixels]:
    assert bundle.pictures is not None
    return list(bundle.pictures.reference_images)


async def edit(
    pipeline: Pipeline, pixels: Pixels, priority: Priority = Priority.NORMAL, steps: int = 5
) -> EditedImage:
    """An edit as a request of its own."""
    begin_request(priority)
    plan = plan_edit(pipeline.bundle, [Edit(3, "set", 2.0)], steps=steps, rounds=1)
    return await pipeline.edit(pixels, plan, math.inf)


async def generate(pipeline: Pipeline, deadline: float = math.inf, **options: Any) -> Generation:
    begin_request(Priority.NORMAL)
    s = np.ones(pipeline.bundle.config.num_prototypes, np.float32)
    pixels = options.get("pixels")
    return await pipeline.generate(
        GenerateRequest(
            pixels=pixels,
            activations=s if pixels is None else None,
            edits=(),
            extrapolate=False,
            num_images=1,
            steps=options.get("steps", 2),
            sampler="ddim",
            eta=0.0,
            seed=0,
            inverted=pixels is not None,
        ),
        deadline,
    )


def test_requests_whose_images_are_known_still_wait_in_a_bounded_queue(bundle: Bundle) -> None:
    async def scenario() -> None:
        runner = CountingRunner(bundle)
        core = EngineCore(runner, max_queue=16, observer=Metrics().engine_observer())
        async with pipeline_over(runner, bundle, core) as pipeline:
            pixels = images_of(bundle)[0]
            await edit(pipeline, pixels)  # now its encoding and its x_T are kept
            runner.gate.clear()
            many = [asyncio.create_task(edit(pipeline, pixels)) for _ in range(100)]
            while core.num_waiting_samples < 15 and not any(task.done() for task in many):
                await asyncio.sleep(0)
            newcomers = [asyncio.create_task(generate(pipeline)) for _ in range(20)]
            first, _ = await asyncio.wait(newcomers, return_when=asyncio.FIRST_COMPLETED)
            assert isinstance(first.pop().exception(), QueueFullError)
            assert core.num_waiting_samples <= 16
            runner.gate.set()
            outcomes = await asyncio.gather(*many, return_exceptions=True)
            await asyncio.gather(*newcomers, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, QueueFullError)]
        done = [outcome for outcome in outcomes if isinstance(outcome, EditedImage)]
        assert len(refused) + len(done) == 100
        assert refused
        assert done

    run(scenario())


def test_request_that_was_taken_is_not_refused_later_for_a_full_queue(bundle: Bundle) -> None:
    async def scenario() -> None:
        runner = CountingRunner(bundle)
        core = EngineCore(runner, max_queue=2, observer=Metrics().engine_observer())
        async with pipeline_over(runner, bundle, core) as pipeline:
            first, second = images_of(bundle)[:2]
            outcomes = await asyncio.gather(
                edit(pipeline, first), edit(pipeline, second), return_exceptions=True
            )
        assert [type(outcome) for outcome in outcomes] == [EditedImage, EditedImage]

    run(scenario())


def test_the_same_images_asked_for_at_once_are_encoded_once(bundle: Bundle) -> None:
    async def scenario() -> None:
        runner = CountingRunner(bundle)
        core = EngineCore(runner, max_queue=100, observer=Metrics().engine_observer())
        async with pipeline_over(runner, bundle, core) as pipeline:
            images = images_of(bundle)
            pairs = await asyncio.gather(*(pipeline.encode(images[:2]) for _ in range(10)))
            overlapping = await asyncio.gather(pipeline.encode(images[2:5]), pipeline.encode(images[3:6]))
        assert sum(runner.encode_calls) == 2 + 4
        for pair in pairs:
            np.testing.assert_array_equal(pair[0].activations, pairs[0][0].activations)
        np.testing.assert_array_equal(overlapping[0][1].activations, overlapping[1][0].activations)

    run(scenario())


def test_images_of_one_request_that_nobody_encodes_yet_are_one_job(bundle: Bundle) -> None:
    async def scenario() -> None:
        runner = CountingRunner(bundle)
        core = EngineCore(runner, max_queue=100, observer=Metrics().engine_observer())
        async with pipeline_over(runner, bundle, core) as pipeline:
            images = images_of(bundle)[:6]
            found = await pipeline.encode([*images, images[0]])
        assert runner.encode_calls == [6]
        assert [encoding.cached for encoding in found] == [False] * 7
        expected, _ = FakeRunner(bundle.config).encode(np.stack(images).astype(np.float32) / 127.5 - 1.0)
        np.testing.assert_allclose([item.activations for item in found[:6]], expected, rtol=1e-5)

    run(scenario())


def test_encoding_goes_on_for_those_who_stay(bundle: Bundle) -> None:
    async def scenario() -> None:
        runner = CountingRunner(bundle)
        core = EngineCore(runner, max_queue=100, observer=Metrics().engine_observer())
        async with pipeline_over(runner, bundle, core) as pipeline:
            runner.gate.clear()
            blocking = asyncio.ensure_future(generate(pipeline))  # so that encoding has to wait
            images = images_of(bundle)[:3]
            leaving = asyncio.ensure_future(pipeline.encode(images))
            staying = asyncio.ensure_future(pipeline.encode(images[1:]))
            for _ in range(20):
                await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            runner.gate.set()
            assert len(await staying) == 2
            await blocking

    run(scenario())


def test_urgent_request_does_not_wait_for_the_inversion_of_a_less_urgent_one(bundle: Bundle) -> None:
    async def scenario() -> None:
        runner = CountingRunner(bundle)
        core = RecordingCore(runner, max_queue=100)
        async with pipeline_over(runner, bundle, core) as pipeline:
            pixels = images_of(bundle)[0]
            await asyncio.gather(
                asyncio.create_task(edit(pipeline, pixels, Priority.LOW)),
                asyncio.create_task(edit(pipeline, pixels, Priority.HIGH)),
                asyncio.create_task(edit(pipeline, pixels, Priority.HIGH)),
            )
        inversions = [job.priority for job in core.jobs if len(job) == 1]
        assert sorted(inversions) == [Priority.HIGH, Priority.LOW]

    run(scenario())


def test_request_that_cannot_be_done_in_time_is_refused_before_it_costs_anything(bundle: Bundle) -> None:
    async def scenario() -> None:
        now = 0.0

        class OneSecondSteps(CountingRunner):
            def denoise_step(self, inputs: StepInputs) -> StepOutputs:
                nonlocal now
                now += 1.0
                return super().denoise_step(inputs)

        runner = OneSecondSteps(bundle)
        core = EngineCore(runner, max_queue=16, observer=Metrics().engine_observer())
        async with AsyncEngine(core, max_queue=16, clock=lambda: now) as engine:
            cache = Cache(MemoryStore(max_bytes=2**26), namespace="", observer=Metrics())
            pipeline = Pipeline(bundle, engine, cache)
            await generate(pipeline, steps=5)  # a step is known to take a second
            calls, pixels = runner.calls, images_of(bundle)[0]
            with pytest.raises(DeadlineExceededError, match="needs about 20 s, 19 s are left"):
                await generate(pipeline, deadline=now + 19.0, pixels=pixels, steps=10)
            assert runner.calls == calls
            generation = await generate(pipeline, deadline=now + 21.0, pixels=pixels, steps=10)
            assert len(generation.images) == 1

    run(scenario())
