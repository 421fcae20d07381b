"""The engine's thread and the bridge to it: what awaiters get, and what becomes of the engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from model.config import small_config
from model.samplers import SamplerTable, ddim, ddpm
from model.schedule import NoiseSchedule
from service.engine.async_engine import BROKEN_AFTER, AsyncEngine, EngineState
from service.engine.engine_core import EngineCore
from service.engine.errors import (
    DeadlineExceededError,
    EngineStoppedError,
    JobTooLargeError,
    QueueFullError,
    StepFailedError,
)
from service.engine.fake_runner import FakeRunner
from service.engine.jobs import DenoiseJob, EncodeJob
from service.engine.observer import SilentObserver
from service.engine.runner import StepInputs, StepOutputs

Float32 = npt.NDArray[np.float32]

CONFIG = small_config(size=16, num_prototypes=4)
SCHEDULE = NoiseSchedule.from_config(CONFIG.schedule)
PATIENCE_S = 20.0


class GatedRunner(FakeRunner):
    """Waits in its first step until `gate` is opened; `entered` tells that it waits there."""

    def __init__(self, *, max_batch: int = 8) -> None:
        super().__init__(CONFIG, max_batch=max_batch)
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.rows_per_step: list[int] = []

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        self.rows_per_step.append(len(inputs))
        return super().denoise_step(inputs)


class DeadlyRunner(GatedRunner):
    """Ends the engine's thread, once the gate is open."""

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        super().denoise_step(inputs)
        raise SystemExit


class DeadlyEncoder(FakeRunner):
    """Ends the engine's thread at the first image."""

    def encode(self, x_0: Float32) -> tuple[Float32, Float32]:
        raise SystemExit


class FailingRunner(FakeRunner):
    """Cannot take a step."""

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        raise RuntimeError("a kernel failed")


def make_engine(
    runner: FakeRunner | None = None, *, max_queue: int = 100, drain_timeout_s: float = PATIENCE_S
) -> AsyncEngine:
    core = EngineCore(runner or FakeRunner(CONFIG), max_queue=max_queue, observer=SilentObserver())
    return AsyncEngine(core, max_queue=max_queue, drain_timeout_s=drain_timeout_s)


def make_job(seed: int, table: SamplerTable | None = None, count: int = 1) -> DenoiseJob:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, *CONFIG.image.shape), dtype=np.float32)
    activations = rng.uniform(0.0, 3.0, (count, CONFIG.num_prototypes)).astype(np.float32)
    return DenoiseJob(x, activations, table or ddpm(SCHEDULE, 5), tuple(range(seed, seed + count)))


def images(count: int) -> Float32:
    return np.random.default_rng(0).uniform(-1.0, 1.0, (count, *CONFIG.image.shape)).astype(np.float32)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Runs a scenario; one in which somebody waits for ever fails."""
    asyncio.run(asyncio.wait_for(scenario, PATIENCE_S))


def state_of(engine: AsyncEngine) -> EngineState:
    return engine.state


async def alone(job: DenoiseJob) -> Float32:
    async with make_engine() as engine:
        return (await engine.denoise(job)).x


async def entered(runner: GatedRunner) -> None:
    """Returns once the engine's thread stands in a step."""
    assert await asyncio.to_thread(runner.entered.wait, PATIENCE_S)


async def settle() -> None:
    """Lets tasks that were just made reach the point where they wait."""
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def gated(runner: GatedRunner, engine: AsyncEngine) -> AsyncIterator[None]:
    """Runs the engine; opens the gate on the way out, so that a failing test does not hang."""
    async with engine:
        try:
            yield
        finally:
            runner.gate.set()


def test_results_reach_their_awaiters() -> None:
    async def scenario() -> None:
        jobs = [make_job(seed, count=1 + seed % 3) for seed in range(10)]
        async with make_engine() as engine:
            results = await asyncio.gather(*(engine.denoise(job) for job in jobs))
        for result, job in zip(results, jobs, strict=True):
            np.testing.assert_allclose(result.x, await alone(job), rtol=1e-4, atol=1e-4)

    run(scenario())


def test_encodings_reach_their_awaiters() -> None:
    async def scenario() -> None:
        x_0 = images(6)
        async with make_engine() as engine:
            results = await asyncio.gather(*(engine.encode(EncodeJob(x_0[i : i + 2])) for i in (0, 2, 4)))
        expected, maps = FakeRunner(CONFIG).encode(x_0)
        np.testing.assert_array_equal(np.concatenate([r.activations for r in results]), expected)
        np.testing.assert_array_equal(np.concatenate([r.similarity_maps for r in results]), maps)

    run(scenario())


def test_requests_that_come_during_a_step_share_the_next_one() -> None:
    async def scenario() -> None:
        runner = GatedRunner()
        engine = make_engine(runner)
        async with gated(runner, engine):
            first = asyncio.create_task(engine.denoise(make_job(0, ddim(SCHEDULE, 2))))
            await entered(runner)
            others = [asyncio.create_task(engine.denoise(make_job(i, ddim(SCHEDULE, 1)))) for i in (1, 2)]
            await settle()
            runner.gate.set()
            await asyncio.gather(first, *others)
        assert runner.rows_per_step == [1, 3]

    run(scenario())


def test_cancelling_an_awaiting_task_cancels_its_job_and_neighbours_finish() -> None:
    async def scenario() -> None:
        runner = GatedRunner()
        engine = make_engine(runner)
        neighbour = make_job(1, ddpm(SCHEDULE, 4))
        async with gated(runner, engine):
            leaving = asyncio.create_task(engine.denoise(make_job(0, ddpm(SCHEDULE, 500), count=2)))
            await entered(runner)
            staying = asyncio.create_task(engine.denoise(neighbour))
            await settle()
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            runner.gate.set()
            result = await staying
            assert state_of(engine) is EngineState.READY
        np.testing.assert_allclose(result.x, await alone(neighbour), rtol=1e-4, atol=1e-4)
        assert runner.rows_per_step == [2, 1, 1, 1, 1]  # the cancelled rows had no second step

    run(scenario())


def test_job_that_is_cancelled_before_the_thread_took_it_never_runs() -> None:
    async def scenario() -> None:
        runner = GatedRunner()
        engine = make_engine(runner)
        async with gated(runner, engine):
            first = asyncio.create_task(engine.denoise(make_job(0, ddim(SCHEDULE, 2))))
            await entered(runner)
            leaving = asyncio.create_task(engine.denoise(make_job(1, count=3)))
            await settle()
            leaving.cancel()
            await settle()
            runner.gate.set()
            await first
        assert runner.rows_per_step == [1, 1]

    run(scenario())


def test_failed_step_reaches_its_awaiter_and_the_engine_goes_on() -> None:
    async def scenario() -> None:
        async with make_engine(FailingRunner(CONFIG)) as engine:
            with pytest.raises(StepFailedError):
                await engine.denoise(make_job(0))
            encoded = await engine.encode(EncodeJob(images(1)))
            assert encoded.activations.shape == (1, CONFIG.num_prototypes)
            assert state_of(engine) is EngineState.READY

    run(scenario())


def test_deadline_in_the_engines_clock_holds() -> None:
    async def scenario() -> None:
        async with make_engine() as engine:
            job = make_job(0)
            late = DenoiseJob(job.x, job.activations, job.table, job.noise_seeds, engine.deadline_in(-1.0))
            with pytest.raises(DeadlineExceededError):
                await engine.denoise(late)

    run(scenario())


def test_full_queue_refuses_a_request_and_takes_work_again_afterwards() -> None:
    async def scenario() -> None:
        runner = GatedRunner(max_batch=1)
        engine = make_engine(runner, max_queue=2)
        async with gated(runner, engine):
            running = asyncio.create_task(engine.denoise(make_job(0)))
            await entered(runner)
            waiting = asyncio.create_task(engine.denoise(make_job(1, count=2)))
            await settle()
            with pytest.raises(QueueFullError):
                await engine.denoise(make_job(2))
            runner.gate.set()
            await asyncio.gather(running, waiting)
            await engine.denoise(make_job(3))

    run(scenario())


def test_job_that_could_never_fit_is_refused() -> None:
    async def scenario() -> None:
        async with make_engine(max_queue=2) as engine:
            with pytest.raises(JobTooLargeError):
                await engine.denoise(make_job(0, count=3))

    run(scenario())


def test_draining_finishes_running_work_and_refuses_new() -> None:
    async def scenario() -> None:
        runner = GatedRunner()
        engine = make_engine(runner)
        running_job, waiting_job = make_job(0), make_job(1)
        async with gated(runner, engine):
            running = asyncio.create_task(engine.denoise(running_job))
            await entered(runner)
            waiting = asyncio.create_task(engine.denoise(waiting_job))
            await settle()
            engine.drain()
            assert state_of(engine) is EngineState.DRAINING
            with pytest.raises(EngineStoppedError, match="draining"):
                await engine.denoise(make_job(2))
            runner.gate.set()
            results = await asyncio.gather(running, waiting)
        for result, job in zip(results, (running_job, waiting_job), strict=True):
            np.testing.assert_allclose(result.x, await alone(job), rtol=1e-4, atol=1e-4)
        assert state_of(engine) is EngineState.STOPPED

    run(scenario())


def test_what_is_not_done_when_the_drain_time_is_over_fails() -> None:
    async def scenario() -> None:
        runner = GatedRunner()
        engine = make_engine(runner, drain_timeout_s=0.0)
        async with gated(runner, engine):
            running = asyncio.create_task(engine.denoise(make_job(0, ddim(SCHEDULE, 1000))))
            await entered(runner)
            engine.drain()
            runner.gate.set()
            with pytest.raises(EngineStoppedError):
                await running
        assert state_of(engine) is EngineState.STOPPED

    run(scenario())


def test_idle_engine_stops_and_refuses_work_afterwards() -> None:
    async def scenario() -> None:
        engine = make_engine()
        with pytest.raises(EngineStoppedError, match="stopped"):
            await engine.denoise(make_job(0))
        async with engine:
            assert state_of(engine) is EngineState.READY
        assert state_of(engine) is EngineState.STOPPED
        with pytest.raises(EngineStoppedError, match="stopped"):
            await engine.encode(EncodeJob(images(1)))

    run(scenario())


def test_thread_that_dies_fails_everything_that_waits_and_the_engine_is_dead() -> None:
    async def scenario() -> None:
        runner = DeadlyRunner(max_batch=1)
        engine = make_engine(runner)
        async with gated(runner, engine):
            running = asyncio.create_task(engine.denoise(make_job(0)))
            await entered(runner)
            waiting = [asyncio.create_task(engine.denoise(make_job(i))) for i in (1, 2)]
            encoding = asyncio.create_task(engine.encode(EncodeJob(images(1))))
            await settle()
            runner.gate.set()
            outcomes = await asyncio.wait_for(
                asyncio.gather(running, *waiting, encoding, return_exceptions=True), PATIENCE_S
            )
            assert [type(outcome) for outcome in outcomes] == [EngineStoppedError] * 4
            assert state_of(engine) is EngineState.DEAD
            with pytest.raises(EngineStoppedError, match="dead"):
                await engine.denoise(make_job(3))
        assert state_of(engine) is EngineState.DEAD

    run(scenario())


def test_thread_that_dies_while_it_encodes_leaves_nobody_waiting() -> None:
    async def scenario() -> None:
        engine = make_engine(DeadlyEncoder(CONFIG))
        async with engine:
            with pytest.raises(EngineStoppedError, match="dead"):
                await asyncio.wait_for(engine.encode(EncodeJob(images(1))), PATIENCE_S)
            assert state_of(engine) is EngineState.DEAD

    run(scenario())


def test_heartbeat_ages_while_a_step_hangs() -> None:
    async def scenario() -> None:
        now = 0.0
        runner = GatedRunner()
        core = EngineCore(runner, max_queue=1, observer=SilentObserver())
        engine = AsyncEngine(core, max_queue=1, clock=lambda: now)
        async with gated(runner, engine):
            running = asyncio.create_task(engine.denoise(make_job(0)))
            await entered(runner)
            now = 60.0
            assert engine.heartbeat_age_s == 60.0
            runner.gate.set()
            await running
            await engine.encode(EncodeJob(images(1)))
            assert engine.heartbeat_age_s == 0.0

    run(scenario())


def test_models_that_share_the_thread_give_what_each_gives_alone() -> None:
    async def scenario() -> None:
        cores = [
            EngineCore(FakeRunner(config, max_batch=2), max_queue=100, observer=SilentObserver())
            for config in (CONFIG, small_config(size=32, num_prototypes=6))
        ]
        other = cores[1]
        async with AsyncEngine(*cores, max_queue=100) as engine:
            rng = np.random.default_rng(0)
            x = rng.standard_normal((3, 1, 32, 32), dtype=np.float32)
            foreign = DenoiseJob(x, np.ones((3, 6), np.float32), ddpm(SCHEDULE, 5), (1, 2, 3))
            own, others, encoded = await asyncio.gather(
                engine.denoise(make_job(1, count=3)),
                engine.denoise(foreign, other),
                engine.encode(EncodeJob(x), other),
            )
            solo = await engine.denoise(foreign, other)
        np.testing.assert_array_equal(own.x, await alone(make_job(1, count=3)))
        np.testing.assert_array_equal(others.x, solo.x)
        assert encoded.activations.shape == (3, 6)

    run(scenario())


def test_stopping_resolves_the_jobs_of_every_model() -> None:
    async def scenario() -> None:
        runner = GatedRunner()
        first = EngineCore(runner, max_queue=100, observer=SilentObserver())
        second = EngineCore(FakeRunner(CONFIG), max_queue=100, observer=SilentObserver())
        engine = AsyncEngine(first, second, max_queue=100, drain_timeout_s=0.0)
        async with gated(runner, engine):
            jobs = [
                asyncio.ensure_future(engine.denoise(make_job(seed), core))
                for seed, core in enumerate((first, second))
            ]
            await entered(runner)
            engine.drain()
            runner.gate.set()
            outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [EngineStoppedError, EngineStoppedError]

    run(scenario())


class FaultyObserver(SilentObserver):
    """Cannot count, which nothing may depend on."""

    def occupancy(self, running: int, waiting: int, active_samples: int) -> None:
        raise MemoryError("no memory for a sample of a metric")


def test_everybody_is_told_even_if_the_engine_fails_while_it_dies() -> None:
    async def scenario() -> None:
        runner = GatedRunner(max_batch=1)
        core = EngineCore(runner, max_queue=100, observer=FaultyObserver())
        engine = AsyncEngine(
            core, EngineCore(FakeRunner(CONFIG), max_queue=9, observer=SilentObserver()), max_queue=9
        )
        async with gated(runner, engine):
            staying = [asyncio.ensure_future(engine.denoise(make_job(seed))) for seed in range(2)]
            await entered(runner)
            leaving = asyncio.ensure_future(engine.denoise(make_job(3)))
            await settle()
            leaving.cancel()  # what this posts will fail, as everything does
            await settle()
            runner.gate.set()
            outcomes = await asyncio.gather(*staying, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [EngineStoppedError, EngineStoppedError]
            assert engine.state is EngineState.DEAD

    run(scenario())


def test_network_that_fails_again_and_again_is_reported_until_it_works() -> None:
    class Recovering(FakeRunner):
        is_broken = True

        def denoise_step(self, inputs: StepInputs) -> StepOutputs:
            if self.is_broken:
                raise RuntimeError("the device is lost")
            return super().denoise_step(inputs)

    async def scenario() -> None:
        runner = Recovering(CONFIG)
        async with make_engine(runner) as engine:
            for _ in range(BROKEN_AFTER):
                assert engine.failure is None
                with pytest.raises(StepFailedError):
                    await engine.denoise(make_job(1))
            assert engine.failure == f"the last {BROKEN_AFTER} calls of the network failed"
            runner.is_broken = False
            await engine.denoise(make_job(1))
            assert engine.failure is None

    run(scenario())


def test_one_failing_sample_among_others_is_no_broken_network() -> None:
    class Choosy(FakeRunner):
        def denoise_step(self, inputs: StepInputs) -> StepOutputs:
            if (inputs.x_t[:, 0, 0, 0] == 99.0).any():
                raise RuntimeError("not this one")
            return super().denoise_step(inputs)

    async def scenario() -> None:
        async with make_engine(Choosy(CONFIG)) as engine:
            for seed in range(2 * BROKEN_AFTER):
                bad = make_job(seed)
                bad.x[0, 0, 0, 0] = 99.0
                good = asyncio.ensure_future(engine.denoise(make_job(seed + 100)))
                with pytest.raises(StepFailedError):
                    await engine.denoise(bad)
                await good
            assert engine.failure is None

    run(scenario())
