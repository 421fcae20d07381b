"""Diagnoses of a world whose couplings are known: prototype k is the brightness of block k of the image."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from model.attributes import Attributes
from model.bundle import Bundle, Prototype
from model.config import DenoiserConfig, EncoderConfig, ImageConfig, ModelConfig
from model.samplers import apply_step
from model.statistics import ActivationStatistics
from service.cache.cache import Cache
from service.cache.memory_store import MemoryStore
from service.engine.async_engine import AsyncEngine
from service.engine.engine_core import EngineCore
from service.engine.errors import DeadlineExceededError
from service.engine.fake_runner import FakeRunner
from service.engine.jobs import Priority
from service.engine.observer import SilentObserver
from service.engine.runner import StepInputs, StepOutputs
from service.metrics import Metrics
from service.pipeline.diagnosis import Diagnosis, diagnose
from service.pipeline.edits import Edit
from service.pipeline.errors import PipelineError
from service.pipeline.experiment import Experiment, Intervention
from service.pipeline.pipeline import Pipeline
from service.pipeline.request_context import begin_request

Float32 = npt.NDArray[np.float32]

BLOCK = 4
NUM_PROTOTYPES = 6
CONFIG = ModelConfig(
    image=ImageConfig(channels=1, height=16, width=16),
    encoder=EncoderConfig(
        num_prototypes=NUM_PROTOTYPES, kernel_sizes=(BLOCK,), channels=(8,), strides=(BLOCK,), paddings=(0,)
    ),
    denoiser=DenoiserConfig(base_channels=8, channel_multipliers=(1,), attention_levels=(False,)),
)
LARGEST = 9.0
"""s of a white block."""


class World(FakeRunner):
    """Paints s into blocks, plus `couplings[j, k]` of s_j in block k, and reads blocks back.

    What else a block shows differs from picture to picture, but does not follow from s in any simple way.
    """

    def __init__(
        self, couplings: dict[tuple[int, int], float], blocks: Sequence[int] = range(NUM_PROTOTYPES)
    ) -> None:
        super().__init__(CONFIG, max_batch=16)
        self._mixing = np.eye(NUM_PROTOTYPES, dtype=np.float32)
        for (j, k), share in couplings.items():
            self._mixing[j, k] = share
        self._blocks = list(blocks)
        self._tangle = np.random.default_rng(0).normal(0, 997, (NUM_PROTOTYPES, NUM_PROTOTYPES))
        self.num_rows = 0

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        self.num_rows += len(inputs)
        s = inputs.activations
        tangled = np.stack([np.sin(row @ self._tangle) for row in s])  # row by row: no batch effects
        shown = s @ self._mixing + 0.2 * tangled
        blocks = np.full((len(s), 16), -1.0)
        blocks[:, :NUM_PROTOTYPES] = shown / LARGEST * 2 - 1
        pixels = np.kron(blocks.reshape(-1, 4, 4), np.ones((BLOCK, BLOCK)))[:, None]
        step = apply_step(pixels, inputs.x_t, inputs.memory, inputs.noise, inputs.coefficients)
        return StepOutputs(*(part.astype(np.float32) for part in step))

    def encode(self, x_0: Float32) -> tuple[Float32, Float32]:
        blocks = x_0.reshape(len(x_0), 4, BLOCK, 4, BLOCK).mean(axis=(2, 4)).reshape(len(x_0), 16)
        s = (blocks[:, :NUM_PROTOTYPES] + 1) / 2 * LARGEST
        maps = np.zeros((len(x_0), NUM_PROTOTYPES, 16), np.float32)
        for k, block in enumerate(self._blocks):
            maps[:, k, block] = s[:, k]
        return s.astype(np.float32), maps.reshape(len(x_0), NUM_PROTOTYPES, 4, 4)


class SlowWorld(World):
    """Each step takes a second of the engine's clock."""

    now = 0.0

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        self.now += 1.0
        return super().denoise_step(inputs)


def bundle_of(correlated: tuple[int, int] | None = None) -> Bundle:
    """Its training data: s about 4.5 with deviations of 1, all independent but for one pair (r = .8)."""
    rng = np.random.default_rng(1)
    z = rng.standard_normal((4000, NUM_PROTOTYPES))
    if correlated is not None:
        j, k = correlated
        z[:, k] = 0.8 * z[:, j] + 0.6 * z[:, k]
    s = np.clip(4.5 + z, 1.0, 8.0).astype(np.float32)
    return Bundle(
        directory=Path(),
        name="blocks",
        digest="0" * 64,
        config=CONFIG,
        statistics=ActivationStatistics.measure(s),
        prototypes=(Prototype(),) * NUM_PROTOTYPES,
        pictures=None,
        prior=None,
        metrics={},
        provenance={},
    )


def run(
    runner: World,
    bundle: Bundle,
    interventions: Sequence[Intervention] | None = None,
    *,
    images: Sequence[npt.NDArray[np.uint8]] = (),
    num_new: int = 16,
    extrapolate: bool = False,
    seed: int = 0,
    clock: Callable[[], float] = lambda: 0.0,
    seconds: float = np.inf,
) -> Diagnosis:
    experiment = Experiment(
        interventions=Intervention.on(bundle, None) if interventions is None else interventions,
        images=images,
        num_new=num_new,
        steps=2,
        seed=seed,
        extrapolate=extrapolate,
    )

    async def scenario() -> Diagnosis:
        begin_request(Priority.NORMAL)
        core = EngineCore(runner, max_queue=64, observer=SilentObserver())
        async with AsyncEngine(core, max_queue=64, clock=clock) as engine:
            cache = Cache(MemoryStore(max_bytes=2**20), namespace="", observer=Metrics())
            pipeline = Pipeline(bundle, engine, cache)
            return await diagnose(pipeline, experiment, num_examples=5, deadline=engine.deadline_in(seconds))

    return asyncio.run(asyncio.wait_for(scenario(), 60))


def established(diagnosis: Diagnosis) -> list[tuple[int, int]]:
    return [(int(i), int(k)) for i, k in np.argwhere(diagnosis.effects.is_established)]


def test_the_planted_coupling_is_found_and_nothing_else() -> None:
    diagnosis = run(World({(0, 1): 0.25}), bundle_of())
    assert established(diagnosis) == [(0, 1)]
    first = diagnosis.couplings[0]
    assert (first.intervention, first.affected) == (0, 1)
    assert first.explained_by == ()
    assert diagnosis.effects.leakage.value[0, 1] == pytest.approx(0.25, abs=0.05)
    assert len(diagnosis.couplings) == 5
    own = np.diag(diagnosis.effects.effect.value)
    statistics = bundle_of().statistics
    assert statistics is not None
    np.testing.assert_allclose(own, (statistics.high - statistics.low) / statistics.std, rtol=0.1)
    np.testing.assert_allclose(diagnosis.own_asked, (statistics.high - statistics.low) / statistics.std)
    assert [item.finding for item in diagnosis.couplings] == ["established"] + 4 * ["chance"]


def test_without_couplings_few_diagnoses_name_any() -> None:
    """At most 1 of 20 does; 4 of these 20 would be seen with a probability below 2%."""
    alarms = sum(bool(established(run(World({}), bundle_of(), seed=100 * i))) for i in range(20))
    assert alarms <= 3


def test_the_example_shows_the_sample_with_the_median_effect() -> None:
    runner = World({(0, 1): -0.2})
    diagnosis = run(runner, bundle_of(), num_new=15)
    example = diagnosis.couplings[0].example
    assert (example.box, example.affected_box) == ((0, 0, 4, 4), (4, 0, 8, 4))
    change = (example.after.astype(float) - example.before)[0, :4, 4:8].mean() / 255 * LARGEST
    effect = diagnosis.effects.effect
    assert effect.low[0, 1] - 0.2 < change < effect.high[0, 1] + 0.2


def test_a_coupling_that_follows_the_data_says_so() -> None:
    diagnosis = run(World({(0, 1): 0.25, (2, 3): 0.25, (4, 5): -0.25}), bundle_of(correlated=(0, 1)))
    reasons = {(item.intervention, item.affected): item.explained_by for item in diagnosis.couplings}
    assert reasons[0, 1] == ("data",)
    assert reasons[2, 3] == reasons[4, 5] == ()
    assert diagnosis.data_correlation[0, 1] == pytest.approx(0.8, abs=0.05)
    assert diagnosis.agreement_with_data is not None
    opposite = run(World({(0, 1): -0.25}), bundle_of(correlated=(0, 1)))
    assert opposite.couplings[0].explained_by == ()


def test_a_coupling_of_prototypes_that_look_at_one_place_says_so() -> None:
    blocks = [0, 0, 2, 3, 4, 5]
    diagnosis = run(World({(0, 1): 0.25, (2, 3): 0.25}, blocks), bundle_of())
    reasons = {(item.intervention, item.affected): item.explained_by for item in diagnosis.couplings}
    assert reasons[0, 1] == ("overlap",)
    assert reasons[2, 3] == ()
    assert diagnosis.overlap[0].tolist() == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def test_edits_are_compared_with_the_samples_as_they_are() -> None:
    bundle = bundle_of()
    runner = World({(2, 4): 0.3})
    interventions = Intervention.by(bundle, [Edit(2, "add", 1.5), Edit(2, "add", -1.5)])
    diagnosis = run(runner, bundle, interventions)
    assert runner.num_rows == 3 * 16 * 2  # both edits share the plain samples
    raised, lowered = diagnosis.effects.effect.value[:, 4]
    assert raised == pytest.approx(-lowered, abs=0.2)
    assert raised > 0.2
    np.testing.assert_allclose(diagnosis.effects.leakage.value[:, 4], 0.3, atol=0.1)


def test_an_edit_that_changes_nothing_has_no_effect_at_all() -> None:
    bundle = bundle_of()
    nothing = Intervention.by(bundle, [Edit(2, "add", 0.0)])
    diagnosis = run(World({(2, 4): 0.3}), bundle, nothing, extrapolate=True)
    np.testing.assert_array_equal(diagnosis.effects.effect.value, 0.0)
    assert established(diagnosis) == []


def test_edits_that_reach_too_far_are_clamped_and_told() -> None:
    bundle = bundle_of()
    diagnosis = run(World({}), bundle, Intervention.by(bundle, [Edit(1, "set", 9.0)]))
    assert [(item.prototype, item.requested) for item in diagnosis.clamped] == [(1, 9.0)]


def test_given_images_are_the_samples() -> None:
    rng = np.random.default_rng(3)
    images = [
        np.kron(rng.integers(40, 216, (4, 4)), np.ones((BLOCK, BLOCK)))[None].astype(np.uint8)
        for _ in range(12)
    ]
    diagnosis = run(World({(0, 1): 0.25}), bundle_of(), images=images)
    assert diagnosis.num_samples == 12
    assert diagnosis.activations_from == "image"
    assert established(diagnosis)[0] == (0, 1)
    with pytest.raises(PipelineError, match="twice"):
        run(World({}), bundle_of(), images=[*images, images[0]])


def test_effects_on_attributes_come_from_what_the_prototypes_do() -> None:
    """Attribute "bright" is read off prototype 1, which prototype 0 drives; "dark" off prototype 5."""
    weights = np.zeros((2, NUM_PROTOTYPES))
    weights[0, 1], weights[1, 5] = 2.0, -3.0
    attributes = Attributes(
        names=("bright", "dark"),
        auroc=np.full((NUM_PROTOTYPES, 2), 0.6),
        probe_weights=weights,
        probe_biases=np.zeros(2),
        probe_auroc=np.full(2, 0.9),
        probe_low=np.full(2, -3.0),
        probe_high=np.full(2, 3.0),
    )
    bundle = replace(bundle_of(correlated=(0, 1)), attributes=attributes)
    found = run(World({(0, 1): 0.25}), bundle).attributes
    assert found is not None
    assert np.argwhere(found.effects.is_established).tolist() == [[0, 0], [1, 0], [5, 1]]
    effect = found.effects.effect.value
    assert effect[5, 1] < 0.0 < effect[0, 0] < effect[1, 0]
    leakage = found.effects.leakage.value  # all in deviations: an attribute of one prototype is that one
    assert leakage[1, 0] == pytest.approx(1.0, abs=0.05)
    assert leakage[0, 0] == pytest.approx(0.25, abs=0.05)
    assert leakage[5, 1] == pytest.approx(-1.0, abs=0.05)
    assert found.data_correlation[0, 0] == pytest.approx(0.8, abs=0.05)
    assert all(item.example.affected_box is None for item in found.couplings)
    assert run(World({}), bundle_of()).attributes is None
    seen = {(item.intervention, item.affected): item.explained_by for item in found.couplings}
    assert found.asked[1, 0] == pytest.approx(effect[1, 0])  # the probe reads prototype 1 alone
    assert found.asked[0, 0] == 0.0  # and does not read prototype 0
    assert "asked" in seen[1, 0]
    assert seen[0, 0] == ("data",)


def labelled(bundle: Bundle, **read_off: int) -> Bundle:
    """The same with attributes, each read off one prototype; only prototypes 0 and 1 may correlate."""
    assert bundle.statistics is not None
    correlation = np.eye(NUM_PROTOTYPES)
    correlation[:2, :2] = bundle.statistics.correlation[:2, :2]
    weights = 2.0 * np.eye(NUM_PROTOTYPES)[list(read_off.values())]
    count = len(read_off)
    attributes = Attributes(
        names=tuple(read_off),
        auroc=np.full((NUM_PROTOTYPES, count), 0.6),
        probe_weights=weights,
        probe_biases=np.zeros(count),
        probe_auroc=np.full(count, 0.9),
        probe_low=np.full(count, -4.0),
        probe_high=np.full(count, 4.0),
    )
    statistics = replace(bundle.statistics, correlation=correlation)
    return replace(bundle, statistics=statistics, attributes=attributes)


FADED = {(k, k): share for k, share in enumerate((0.8, 0.5, 0.9, 0.6, 0.7, 0.4))}
"""Pictures follow s in part, and each prototype by another part."""


def test_an_attribute_that_is_changed_shows_the_planted_coupling_and_nothing_else() -> None:
    """Prototype 0 is "fair", and drives prototype 1, which is "smile"; the data know nothing of it."""
    bundle = labelled(bundle_of(), fair=0, smile=1, hat=5)
    diagnosis = run(World({(0, 1): 0.25}), bundle, Intervention.on_attributes(bundle, ["fair"]))
    assert established(diagnosis) == [(0, 1)]
    assert diagnosis.effects.leakage.value[0, 1] == pytest.approx(0.25, abs=0.05)
    first = diagnosis.couplings[0]
    assert (first.intervention, first.affected, first.explained_by) == (0, 1, ())
    assert first.example.box is None
    assert first.example.affected_box == (4, 0, 8, 4)
    found = diagnosis.attributes
    assert found is not None
    assert np.argwhere(found.effects.is_established).tolist() == [[0, 1]]
    assert found.couplings[0].explained_by == ()
    assert found.effects.effect.value[0, 0] == pytest.approx(4.0, abs=0.3)  # from -2 to 2 deviations
    assert found.effects.effect.value[0, 1] == pytest.approx(1.0, abs=0.2)
    assert np.isnan(found.effects.p[0, 0])
    np.testing.assert_allclose(found.asked, [[4.0, 0.0, 0.0]], atol=0.15)
    assert diagnosis.agreement_with_data is None


def test_what_an_attribute_asks_of_prototypes_is_no_coupling_but_of_attributes_it_is() -> None:
    """The model couples nothing; "fair" and "smile" go together in the data, and so when asked for."""
    bundle = labelled(bundle_of(correlated=(0, 1)), fair=0, smile=1, hat=5)
    diagnosis = run(World(FADED), bundle, Intervention.on_attributes(bundle, ["fair"]))
    assert established(diagnosis) == []
    assert diagnosis.asked[0, 1] > 2.0
    assert 1.0 < diagnosis.effects.effect.value[0, 1] < diagnosis.asked[0, 1]
    assert diagnosis.effects.p[0, 1] == 1.0
    findings = {item.affected: item.finding for item in diagnosis.couplings}
    assert findings == {
        0: "within_asked",
        **dict.fromkeys(range(2, 6), "chance"),
    }  # 5 are shown, and 1 is last
    assert abs(diagnosis.effects.beyond.value[0, 0]) < 1e-9
    np.testing.assert_allclose(diagnosis.own_asked, [4.0], atol=0.15)
    found = diagnosis.attributes
    assert found is not None
    assert np.argwhere(found.effects.is_established).tolist() == [[0, 1]]
    assert found.couplings[0].explained_by == ("data", "asked")
    assert found.couplings[0].finding == "established"  # though asked for: nobody wanted it
    assert found.data_correlation[0].tolist() == pytest.approx([1.0, 0.8, 0.0], abs=0.05)
    assert found.asked[0, 1] == pytest.approx(diagnosis.asked[0, 1])


def test_what_the_model_adds_to_what_an_attribute_asks_is_a_coupling() -> None:
    bundle = labelled(bundle_of(correlated=(0, 1)), fair=0, smile=1, hat=5)
    diagnosis = run(World({(0, 1): 0.25}), bundle, Intervention.on_attributes(bundle, ["fair"]))
    assert established(diagnosis) == [(0, 1)]
    assert diagnosis.effects.leakage.value[0, 1] == pytest.approx(0.25, abs=0.08)
    assert diagnosis.couplings[0].explained_by == ("data",)
    mixing = {(0, 1): -0.6, (1, 1): 0.5, (2, 1): 0.7}  # the last for brightness enough to fall from
    against = run(World(mixing), bundle, Intervention.on_attributes(bundle, ["fair"]))
    assert established(against) == [(0, 1)]
    assert against.effects.effect.value[0, 1] < 0.0 < against.asked[0, 1]
    assert against.couplings[0].explained_by == ()


def test_prototypes_attributes_and_edits_of_both_are_told_apart() -> None:
    bundle = labelled(bundle_of(), fair=0, smile=1, hat=5)
    by_edit = Intervention.by(bundle, [Edit(None, "add", 2.0, "hat"), Edit(5, "add", 1.0)])
    interventions = [*Intervention.on(bundle, [2]), *Intervention.on_attributes(bundle, ["hat"]), *by_edit]
    diagnosis = run(World({}), bundle, interventions)
    assert [(item.prototype, item.attribute) for item in diagnosis.interventions] == [
        (2, None),
        (None, "hat"),
        (None, "hat"),
        (5, None),
    ]
    assert np.isnan(diagnosis.asked).all(axis=1).tolist() == [True, False, False, True]
    assert np.isnan(diagnosis.overlap).all(axis=1).tolist() == [False, True, True, False]
    assert np.isnan(diagnosis.effects.p).sum(axis=1).tolist() == [1, 0, 0, 1]
    found = diagnosis.attributes
    assert found is not None
    assert np.isnan(found.effects.p).tolist() == [[False] * 3, *[[False, False, True]] * 2, [False] * 3]
    assert found.effects.effect.value[2, 2] == pytest.approx(1.0, abs=0.2)  # 2 log-odds are a deviation


@pytest.mark.parametrize("names", [["beard"], ["fair", "fair"]])
def test_attributes_that_cannot_be_meant_are_refused(names: list[str]) -> None:
    with pytest.raises(PipelineError, match=r"no attribute 'beard'|asked for more than once: fair"):
        Intervention.on_attributes(labelled(bundle_of(), fair=0), names)
    with pytest.raises(PipelineError, match="needs labels"):
        Intervention.on_attributes(bundle_of(), names)


def test_what_cannot_be_done_in_time_is_given_up_early_with_what_to_do() -> None:
    """48 rows of 2 steps in batches of 16 are 6 s, less where they share one, of each of 60 interventions."""
    bundle, runner = bundle_of(), SlowWorld({})
    interventions = Intervention.on(bundle, None) + Intervention.by(bundle, [Edit(0, "add", 1.0)] * 54)
    with pytest.raises(DeadlineExceededError, match="ask for fewer prototypes, samples or steps"):
        run(runner, bundle, interventions, num_new=24, clock=lambda: runner.now, seconds=150.0)
    assert runner.now < 100.0  # known after some 30 s; on a busy machine steps go on until that is heard


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(PipelineError, match="at least 6 samples, not 5"):
        run(World({}), bundle_of(), num_new=5)


def test_more_pictures_than_memory_is_meant_for_are_refused() -> None:
    bundle = bundle_of()
    with pytest.raises(PipelineError, match="fewer prototypes or samples"):
        run(World({}), bundle, Intervention.on(bundle, None) * 60, num_new=4096)


def test_a_bundle_without_statistics_has_no_scale_for_effects() -> None:
    bundle = bundle_of()
    with pytest.raises(PipelineError, match="a diagnosis needs activation statistics"):
        run(World({}), replace(bundle, statistics=None), Intervention.on(bundle, None))
