"""Decoupled edits over a world that paints s, mixed, into the picture: they must be exact there."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from model.bundle import Bundle
from model.effects import MeasuredEffects
from service.cache.cache import Cache
from service.cache.memory_store import MemoryStore
from service.engine.async_engine import AsyncEngine
from service.engine.engine_core import EngineCore
from service.engine.observer import SilentObserver
from service.metrics import Metrics
from service.pipeline.editing import EditedImage, Preserve, plan_edit
from service.pipeline.edits import Edit
from service.pipeline.errors import PipelineError
from service.pipeline.pipeline import GenerateRequest, Generation, Pipeline
from service.settings import Settings
from tests.service.conftest import b64, png, serving
from tests.service.test_diagnosis import BLOCK, LARGEST, NUM_PROTOTYPES, World, bundle_of

COUPLINGS = {(0, 1): 0.4, (0, 4): -0.3, (2, 1): 0.2, (1, 0): 0.1}


class StraightWorld(World):
    """Without anything that does not follow from s."""

    def __init__(self) -> None:
        super().__init__(COUPLINGS)
        self._tangle = np.zeros_like(self._tangle)


def measured_bundle() -> Bundle:
    mixing = np.eye(NUM_PROTOTYPES)
    for (j, k), share in COUPLINGS.items():
        mixing[j, k] = share
    return replace(bundle_of(), effects=MeasuredEffects(mixing, np.zeros_like(mixing), 16))


def with_pipeline(bundle: Bundle, use: Any) -> Any:
    async def scenario() -> Any:
        core = EngineCore(StraightWorld(), max_queue=64, observer=SilentObserver())
        async with AsyncEngine(core, max_queue=64) as engine:
            cache = Cache(MemoryStore(max_bytes=2**20), namespace="", observer=Metrics())
            return await use(Pipeline(bundle, engine, cache))

    return asyncio.run(asyncio.wait_for(scenario(), 60))


def painted(s: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """The picture (1, 16, 16) of which the world reads s."""
    blocks = np.zeros(16)
    blocks[:NUM_PROTOTYPES] = s / LARGEST * 255
    return np.round(np.kron(blocks.reshape(4, 4), np.ones((BLOCK, BLOCK))))[None].astype(np.uint8)


def edited(edits: Sequence[Edit], *, decouple: bool, preserve: Preserve = (), rounds: int = 1) -> EditedImage:
    bundle = measured_bundle()
    plan = plan_edit(bundle, edits, steps=2, rounds=rounds, preserve=preserve, decouple=decouple)
    # a picture that the world paints itself under its own s: (I - mixing) s = 0 would leave it as it is
    pixels = painted(np.full(NUM_PROTOTYPES, 4.0))
    found: EditedImage = with_pipeline(bundle, lambda pipeline: pipeline.edit(pixels, plan, math.inf))
    return found


def test_the_first_round_changes_what_is_edited_and_nothing_else() -> None:
    """Against the same image regenerated without the edit, which the world does not leave as it is."""
    raised = [Edit(0, "add", 1.0)]
    found = edited(raised, decouple=True)
    change = found.achieved - found.reconstruction_activations
    np.testing.assert_allclose(change, [1.0, 0, 0, 0, 0, 0], atol=0.05)  # 8-bit pixels are 0.035 apart
    assert found.rounds == 1
    assert np.count_nonzero(found.driven != found.asked) >= 2
    plain = edited(raised, decouple=False)
    change = plain.achieved - plain.reconstruction_activations
    np.testing.assert_allclose(change, [1.0, 0.4, 0, 0, -0.3, 0], atol=0.05)
    assert found.num_calls == plain.num_calls


def test_only_preserved_prototypes_are_driven_against_where_some_are_named() -> None:
    found = edited([Edit(0, "add", 1.0)], decouple=True, preserve=[4], rounds=2)
    assert set(np.flatnonzero(found.driven != found.asked)) <= {0, 4}


def test_later_rounds_go_on_from_the_decoupled_one() -> None:
    once = edited([Edit(0, "add", 1.0)], decouple=True)
    often = edited([Edit(0, "add", 1.0)], decouple=True, preserve="others", rounds=6)

    def miss(image: EditedImage) -> float:
        return float(np.abs(image.achieved - image.asked).sum())

    assert often.rounds > 1
    assert miss(often) < miss(once)


def test_generated_samples_are_decoupled_too() -> None:
    bundle = measured_bundle()

    def generated(edits: Sequence[Edit], *, decouple: bool) -> Generation:
        request = GenerateRequest(
            pixels=None,
            activations=None,
            edits=edits,
            extrapolate=True,
            num_images=3,
            steps=2,
            sampler="ddim",
            eta=0.0,
            seed=5,
            inverted=False,
            decouple=decouple,
        )
        found: Generation = with_pipeline(bundle, lambda pipeline: pipeline.generate(request, math.inf))
        return found

    raised = [Edit(0, "add", 0.5)]
    plain, decoupled = generated(raised, decouple=False), generated(raised, decouple=True)
    unedited = generated([], decouple=True)
    for before, image, coupled in zip(unedited.images, decoupled.images, plain.images, strict=True):
        np.testing.assert_array_equal(image.asked, coupled.asked)
        np.testing.assert_allclose(image.achieved - before.achieved, [0.5, 0, 0, 0, 0, 0], atol=0.05)
        assert (coupled.achieved - before.achieved)[1] == pytest.approx(0.2, abs=0.05)


def test_a_bundle_without_effects_says_what_is_missing() -> None:
    with pytest.raises(
        PipelineError, match=r"decouple needs the effects .*'blocks' has none: .*training remeasure"
    ):
        plan_edit(bundle_of(), [Edit(0, "max")], decouple=True)
    bare = replace(bundle_of(), statistics=None)
    with pytest.raises(PipelineError, match="import the checkpoint again"):
        plan_edit(bare, [Edit(0, "add", 1.0)], decouple=True)


@pytest.fixture(scope="module")
def client(tiny_bundle: Path, settings: Settings) -> Iterator[httpx.Client]:
    served = replace(settings, bundle=(tiny_bundle,), max_batch=4)
    with serving(served) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def image(tiny_bundle: Path) -> str:
    from model.transforms import to_picture

    pictures = Bundle.load(tiny_bundle).pictures
    assert pictures is not None
    return b64(png(to_picture(pictures.reference_images[0])))


def test_both_calls_take_decouple(client: httpx.Client, image: str) -> None:
    body = {"image": image, "edits": [{"prototype": 0, "op": "max"}], "steps": 3}
    for call in ("/edit", "/generate"):
        answers = [client.post(call, json=body | {"decouple": decouple}) for decouple in (False, True)]
        assert [answer.status_code for answer in answers] == [200, 200], answers[1].text
        if call == "/edit":
            plain, decoupled = (answer.json()["activations"] for answer in answers)
            assert plain["asked"] == decoupled["asked"]
            assert plain["driven"] != decoupled["driven"]
    assert client.post("/edit", json=body | {"decouple": "yes"}).status_code == 422


def test_a_prototype_tells_its_strongest_effects(client: httpx.Client, tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    assert bundle.effects is not None
    assert bundle.statistics is not None
    mean, error = bundle.effects.over_range(bundle.statistics)
    answer = client.get("/prototypes/2").json()
    assert answer["own_effect"]["prototype"] == 2
    assert answer["own_effect"]["effect"] == pytest.approx(mean[2, 2], abs=1e-4)
    assert sorted(item["prototype"] for item in answer["effects"]) == [0, 1, 3]
    sizes = [abs(item["effect"]) for item in answer["effects"]]
    assert sizes == sorted(sizes, reverse=True)
    first = answer["effects"][0]
    assert first["standard_error"] == pytest.approx(error[2, first["prototype"]], abs=1e-4)


def test_a_bundle_without_effects_tells_none_and_refuses_to_decouple(fake: httpx.Client, image: str) -> None:
    answer = fake.get("/prototypes/2").json()
    if answer["effects"] is None:
        assert answer["own_effect"] is None
        body = {"image": image, "edits": [{"prototype": 0, "op": "max"}], "decouple": True}
        refused = fake.post("/edit", json=body)
        assert refused.status_code == 422
        assert "remeasure" in refused.json()["detail"]
