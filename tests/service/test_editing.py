"""Plans of edits: what is held, where they start, what they cost, and which are refused."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from model.bundle import Bundle, Prototype
from service.cache.cache import Cache
from service.cache.memory_store import MemoryStore
from service.engine.async_engine import AsyncEngine
from service.engine.engine_core import EngineCore
from service.engine.fake_runner import FakeRunner
from service.engine.jobs import DenoiseJob, DenoiseResult, Ticket
from service.metrics import Metrics
from service.pipeline.editing import EditedImage, EditPlan, Preserve, Start, plan_edit
from service.pipeline.edits import Edit, apply_edits
from service.pipeline.errors import PipelineError, UnknownPrototypeError
from service.pipeline.pipeline import Pipeline
from service.pipeline.round_trip import Inversion

M = 30
RAISED = [Edit(3, "add", 0.5), Edit("sleeve", "max"), Edit(3, "scale", 1.1)]


@pytest.fixture(scope="module")
def named(bundle: Bundle) -> Bundle:
    """The shipped bundle, where 5 is a sleeve, and 3, 5 and 7 are known to emerge at 250, 420 and 0."""
    prototypes = [Prototype() for _ in bundle.prototypes]
    prototypes[3] = Prototype(emergence_timestep=250)
    prototypes[5] = Prototype(name="sleeve", emergence_timestep=420)
    prototypes[7] = Prototype(emergence_timestep=0)
    return dataclasses.replace(bundle, prototypes=tuple(prototypes))


def test_edited_prototypes_are_found_by_index_and_name_each_once(named: Bundle) -> None:
    assert plan_edit(named, RAISED).edited == [3, 5]


@pytest.mark.parametrize(
    ("preserve", "held"),
    [
        ([], []),
        ([9, 0], [0, 9]),
        (["sleeve", 1], [1, 5]),
        ("others", [j for j in range(M) if j != 3]),
    ],
)
def test_what_is_preserved_is_held(named: Bundle, preserve: Preserve, held: list[int]) -> None:
    assert plan_edit(named, [Edit(3, "max")], preserve=preserve).held == held


def test_others_are_all_that_no_edit_names(named: Bundle) -> None:
    plan = plan_edit(named, RAISED, preserve="others")
    assert sorted(plan.held + plan.edited) == list(range(M))


@pytest.mark.parametrize(
    ("preserve", "error", "message"),
    [
        ([3], PipelineError, r"\[3\] are both edited and to be preserved"),
        (["sleeve", 3], PipelineError, r"\[3, 5\] are both edited"),
        ([1, 2, 1], PipelineError, r"more than once: \[1\]"),
        ([M], UnknownPrototypeError, "no prototype 30"),
        (["others"], UnknownPrototypeError, "no prototype named 'others'"),
    ],
)
def test_what_cannot_be_preserved_is_refused(
    named: Bundle, preserve: Sequence[int | str], error: type[PipelineError], message: str
) -> None:
    with pytest.raises(error, match=message):
        plan_edit(named, RAISED, preserve=preserve)


def test_preserving_without_a_second_round_is_refused(named: Bundle) -> None:
    with pytest.raises(PipelineError, match="rounds of at least 2, not 1"):
        plan_edit(named, RAISED, preserve=[0], rounds=1)


@pytest.mark.parametrize(
    ("edits", "steps", "inversion", "start"),
    [
        ([Edit(3, "max")], 20, "ddim", 299),  # levels 49, 99, …
        ([Edit(5, "max")], 20, "ddim", 449),
        ([Edit(3, "max"), Edit(5, "max")], 20, "ddim", 449),  # neither has emerged yet
        ([Edit(3, "max")], 4, "ddim", 249 + 250),
        ([Edit(7, "max")], 10, "bdia", 199),
    ],
)
def test_auto_starts_at_the_lowest_level_where_no_edited_prototype_has_emerged(
    named: Bundle, edits: list[Edit], steps: int, inversion: Inversion, start: int
) -> None:
    plan = plan_edit(named, edits, start="auto", steps=steps, inversion=inversion)
    assert plan.trip.start_timestep == start


def test_auto_is_refused_where_nobody_knows_when_a_prototype_emerges(named: Bundle) -> None:
    with pytest.raises(PipelineError, match=r"'fashion-mnist' does not say it of \[4, 6\].*remeasure"):
        plan_edit(named, [Edit(3, "max"), Edit(6, "max"), Edit(4, "max")], start="auto")


def test_spread_is_the_training_datas_and_unknown_without(named: Bundle) -> None:
    assert named.statistics is not None
    spread = plan_edit(named, RAISED).spread
    assert spread is not None
    np.testing.assert_allclose(spread, named.statistics.std, rtol=1e-6)
    imported = dataclasses.replace(named, statistics=None, pictures=None)
    assert plan_edit(imported, [Edit(3, "add", 1.0)]).spread is None


class CountingCore(EngineCore):
    """Counts the row-steps that it was asked for, and remembers how the jobs begin."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(FakeRunner(bundle.config), max_queue=64, observer=Metrics().engine_observer())
        self.jobs: list[DenoiseJob] = []

    @property
    def row_steps(self) -> int:
        return sum(len(job) * len(job.table) for job in self.jobs)

    def submit_denoise(self, job: DenoiseJob, ticket: Ticket[DenoiseResult], now: float) -> None:
        self.jobs.append(job)
        super().submit_denoise(job, ticket, now)


def edit_with(core: CountingCore, bundle: Bundle, *plans: EditPlan) -> list[EditedImage]:
    """The bundle's first image edited by each plan, one after the other, with one cache."""

    async def scenario() -> list[EditedImage]:
        async with AsyncEngine(core, max_queue=64) as engine:
            cache = Cache(MemoryStore(max_bytes=2**26), namespace="", observer=Metrics())
            pipeline = Pipeline(bundle, engine, cache)
            assert bundle.pictures is not None
            pixels = bundle.pictures.reference_images[0]
            return [await pipeline.edit(pixels, plan, math.inf) for plan in plans]

    return asyncio.run(asyncio.wait_for(scenario(), 60))


def test_others_are_served_while_many_attributes_are_asked_for(named: Bundle) -> None:
    assert named.attributes is not None
    edits = [Edit(None, "add", 0.01, name) for name in named.attributes.names * 10]
    s = np.full((1, M), 1.0, np.float32)

    async def scenario() -> tuple[int, npt.NDArray[np.float32]]:
        async with AsyncEngine(core := CountingCore(named), max_queue=64) as engine:
            cache = Cache(MemoryStore(max_bytes=2**20), namespace="", observer=Metrics())
            pipeline, turns = Pipeline(named, engine, cache, core), 0
            applied = asyncio.ensure_future(pipeline.applied(edits, s, extrapolate=False))
            while not applied.done():
                await asyncio.sleep(0)
                turns += 1
            return turns, applied.result()[0]

    turns, applied = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert turns > 2  # of the event loop, where the work done there takes one
    np.testing.assert_array_equal(applied, apply_edits(named, s, edits, extrapolate=False)[0])


@pytest.mark.parametrize("inversion", ["ddim", "bdia"])
@pytest.mark.parametrize("start", [499, "full"])
def test_calls_are_counted_as_they_are_made(named: Bundle, inversion: Inversion, start: Start) -> None:
    core = CountingCore(named)
    plan = plan_edit(named, RAISED, preserve="others", start=start, steps=10, rounds=3, inversion=inversion)
    (edited,) = edit_with(core, named, plan)
    assert edited.num_calls == core.row_steps
    assert edited.num_calls <= plan.num_row_steps == plan.num_calls(3)


def test_inversions_are_kept_apart_by_method_steps_and_start(named: Bundle) -> None:
    core = CountingCore(named)
    inversions: tuple[Inversion, ...] = ("ddim", "bdia")
    plans = [
        plan_edit(named, RAISED, rounds=1, start=start, steps=steps, inversion=inversion)
        for inversion in inversions
        for steps in (5, 10)
        for start in (999, 599)
    ]
    first = edit_with(core, named, *plans, *plans)
    inverted = [job for job in core.jobs if len(job) == 1]
    assert len(inverted) == len(plans)  # the second time all of them are known
    for one, other in zip(first[: len(plans)], first[len(plans) :], strict=True):
        np.testing.assert_array_equal(one.edited, other.edited)


def test_bdia_gives_back_every_pixel_where_an_edit_changes_nothing(named: Bundle) -> None:
    for start in (399, 999):
        nothing = [Edit(3, "add", 0.0)]
        plan = plan_edit(named, nothing, extrapolate=True, start=start, steps=10, inversion="bdia")
        (edited,) = edit_with(CountingCore(named), named, plan)
        np.testing.assert_array_equal(edited.edited, edited.source.pixels)
        np.testing.assert_array_equal(edited.reconstruction, edited.source.pixels)
        assert edited.rounds == 1
        assert edited.leakage == pytest.approx(0.0, abs=1e-5)


def test_leakage_is_the_mean_change_of_the_others_in_their_spread(named: Bundle) -> None:
    (edited,) = edit_with(CountingCore(named), named, plan_edit(named, RAISED, steps=3))
    assert named.statistics is not None
    change = (edited.achieved - edited.source.activations) / named.statistics.std
    assert edited.leakage == pytest.approx(np.abs(np.delete(change, [3, 5])).mean(), rel=1e-4)


def test_leakage_is_none_where_everything_is_edited_or_no_spread_is_known(named: Bundle) -> None:
    every = [Edit(j, "add", 0.1) for j in range(M)]
    imported = dataclasses.replace(named, statistics=None)
    for bundle, edits in ((named, every), (imported, [Edit(3, "add", 0.1)])):
        (edited,) = edit_with(CountingCore(named), bundle, plan_edit(bundle, edits, steps=1, rounds=1))
        assert edited.leakage is None


def test_held_prototypes_are_driven_and_others_are_not(named: Bundle) -> None:
    plan = plan_edit(named, [Edit(3, "add", 2.0)], preserve=[0, 1], steps=3, rounds=3, extrapolate=True)
    (edited,) = edit_with(core := CountingCore(named), named, plan)
    asked = edited.asked
    np.testing.assert_array_equal(np.delete(asked, 3), np.delete(edited.source.activations, 3))
    *_, last = core.jobs
    changed = np.flatnonzero(last.activations[0] != asked)
    assert set(changed) <= {0, 1, 3}
    assert {0, 1} & set(changed)
