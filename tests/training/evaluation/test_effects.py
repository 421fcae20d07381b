"""Effects of prototypes on one another: training and POST /diagnose must find the same."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.bundle import Bundle
from model.patronus import Patronus
from service.cache.cache import Cache
from service.cache.memory_store import MemoryStore
from service.engine.async_engine import AsyncEngine
from service.engine.engine_core import EngineCore
from service.engine.jobs import Priority
from service.engine.observer import SilentObserver
from service.engine.onnx_runner import OnnxRunner
from service.metrics import Metrics
from service.pipeline.diagnosis import Diagnosis, diagnose
from service.pipeline.experiment import Experiment, Intervention
from service.pipeline.pipeline import Pipeline, Starts
from service.pipeline.randomness import sample_seeds
from service.pipeline.request_context import begin_request
from training.evaluation.effects import measure_effects

STEPS, NUM_SAMPLES = 5, 8


def diagnosed(bundle: Bundle) -> tuple[Diagnosis, Starts]:
    """Every prototype driven in the same new samples, and where those began."""
    interventions = Intervention.on(bundle, None)
    experiment = Experiment(
        interventions, images=[], num_new=NUM_SAMPLES, steps=STEPS, seed=3, extrapolate=False
    )

    async def scenario() -> tuple[Diagnosis, Starts]:
        begin_request(Priority.NORMAL)
        core = EngineCore(
            OnnxRunner(bundle, device="cpu", max_batch=16), max_queue=64, observer=SilentObserver()
        )
        async with AsyncEngine(core, max_queue=64) as engine:
            cache = Cache(MemoryStore(max_bytes=2**20), namespace="", observer=Metrics())
            pipeline = Pipeline(bundle, engine, cache)
            seeds = sample_seeds(3, NUM_SAMPLES)
            starts = await pipeline.starts([], seeds, steps=STEPS, deadline=np.inf)
            return await diagnose(pipeline, experiment, num_examples=0, deadline=np.inf), starts

    return asyncio.run(asyncio.wait_for(scenario(), 60))


def test_they_are_those_of_a_diagnosis_of_the_same_samples(
    tiny_bundle: Path, tiny_patronus: Patronus
) -> None:
    bundle = Bundle.load(tiny_bundle)
    assert bundle.statistics is not None
    diagnosis, starts = diagnosed(bundle)
    found = measure_effects(
        tiny_patronus, starts.activations, bundle.statistics, x_T=starts.x_T, steps=STEPS, batch_size=7
    )
    mean, _ = found.over_range(bundle.statistics)
    expected = diagnosis.effects.effect.value
    assert np.abs(expected).max() > 0.05
    # torch and ONNX Runtime may round a pixel to either of two gray levels
    np.testing.assert_allclose(mean, expected, atol=0.02 * np.abs(expected).max())
    assert found.num_samples == NUM_SAMPLES


def test_they_do_not_depend_on_the_batch_and_follow_from_the_seed(
    tiny_bundle: Path, tiny_patronus: Patronus
) -> None:
    bundle = Bundle.load(tiny_bundle)
    assert bundle.statistics is not None
    s = bundle.statistics.resample(np.random.default_rng(0), 6)

    def measured(seed: int, batch_size: int) -> npt.NDArray[np.float64]:
        assert bundle.statistics is not None
        return measure_effects(
            tiny_patronus, s, bundle.statistics, steps=4, seed=seed, batch_size=batch_size
        ).mean

    np.testing.assert_allclose(measured(0, 5), measured(0, 64), atol=0.02)
    assert np.abs(measured(0, 64) - measured(1, 64)).max() > 0.0
