"""What a request's headers ask of the engine."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from model.bundle import Bundle
from service.cache.cache import Cache
from service.cache.memory_store import MemoryStore
from service.engine.async_engine import AsyncEngine
from service.engine.engine_core import EngineCore
from service.engine.fake_runner import FakeRunner
from service.engine.jobs import DenoiseJob, DenoiseResult, Priority, Ticket
from service.metrics import Metrics
from service.pipeline.pipeline import GenerateRequest, Pipeline
from service.routes.answering import Context, answer
from service.settings import Settings


class RecordingCore(EngineCore):
    """Remembers the jobs that it was given."""

    jobs: list[DenoiseJob]

    def submit_denoise(self, job: DenoiseJob, ticket: Ticket[DenoiseResult], now: float) -> None:
        self.jobs = [*getattr(self, "jobs", []), job]
        super().submit_denoise(job, ticket, now)


async def never() -> Message:
    """A client that sends nothing and stays."""
    await asyncio.Event().wait()
    raise AssertionError


def jobs_of(bundle: Bundle, headers: dict[str, str], request_timeout_s: float = 100.0) -> list[DenoiseJob]:
    """The jobs that an edit of an image makes, at time 0 of the engine's clock."""
    metrics = Metrics()
    core = RecordingCore(FakeRunner(bundle.config), max_queue=10, observer=metrics.engine_observer())
    pixels = bundle.pictures.reference_images[0] if bundle.pictures is not None else None
    wanted = GenerateRequest(
        pixels=pixels,
        activations=None,
        edits=(),
        extrapolate=False,
        num_images=1,
        steps=2,
        sampler="ddim",
        eta=0.0,
        seed=0,
        inverted=True,
    )

    async def scenario() -> None:
        async with AsyncEngine(core, max_queue=10, clock=lambda: 0.0) as engine:
            pipeline = Pipeline(
                bundle, engine, Cache(MemoryStore(max_bytes=0), namespace="", observer=metrics)
            )
            settings = replace(Settings(), request_timeout_s=request_timeout_s)
            context = Context(settings, engine, [pipeline], metrics)
            encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            request = Request({"type": "http", "method": "POST", "headers": encoded}, never)

            async def work(deadline: float) -> Response:
                await pipeline.generate(wanted, deadline)
                return Response()

            assert (await answer(context, request, "generate", work)).status_code == 200

    asyncio.run(scenario())
    return core.jobs


@pytest.mark.parametrize("priority", Priority)
def test_priority_of_a_request_holds_for_each_of_its_jobs(bundle: Bundle, priority: Priority) -> None:
    jobs = jobs_of(bundle, {"X-Request-Priority": priority.value})
    assert [job.priority for job in jobs] == [priority, priority]  # the inversion, and the sampling


def test_request_without_a_priority_is_normal(bundle: Bundle) -> None:
    assert {job.priority for job in jobs_of(bundle, {})} == {Priority.NORMAL}


@pytest.mark.parametrize(
    ("asked", "deadline"), [("2.5", 2.5), ("0.75", 0.75), ("1000", 100.0), (None, 100.0)]
)
def test_deadline_is_what_was_asked_for_up_to_the_setting(
    bundle: Bundle, asked: str | None, deadline: float
) -> None:
    headers = {} if asked is None else {"X-Request-Timeout": asked}
    assert jobs_of(bundle, headers)[-1].deadline == deadline
