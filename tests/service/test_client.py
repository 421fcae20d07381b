"""The client against the live service, waiting and with asyncio."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import service.client as client_package
from model.bundle import Bundle
from service.client import (
    AsyncClient,
    AuthenticationError,
    BadRequestError,
    Client,
    Edit,
    Generation,
    NotFoundError,
    OverloadedError,
    Picture,
    Progress,
    Retries,
    TimedOutError,
    UnreachableError,
    calls,
)
from service.settings import Settings
from tests.service.conftest import eventually, fake_runner, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def client(real_url: str) -> Iterator[Client]:
    with Client(real_url) as client:
        yield client


@pytest.fixture
def shirt(reference_pngs: list[bytes]) -> bytes:
    return reference_pngs[0]


def test_an_image_is_the_same_as_path_bytes_pillow_pixels_and_image_id(
    client: Client, shirt: bytes, tmp_path: Path, real_url: str
) -> None:
    path = tmp_path / "shirt.png"
    path.write_bytes(shirt)
    picture = Image.open(io.BytesIO(shirt))
    first = client.encode(path, maps=True)[0]
    for source in (str(path), shirt, picture, np.asarray(picture), first.image_id):
        again = client.encode(source)[0]
        assert again.image_id == first.image_id
        np.testing.assert_array_equal(again.activations, first.activations)
        assert again.similarity_maps is None
    answer = httpx.post(f"{real_url}/encode", files={"image": shirt}).json()["images"][0]
    assert answer["image_id"] == first.image_id
    np.testing.assert_array_equal(first.activations, np.float32(answer["activations"]))
    assert first.similarity_maps is not None
    for patch, map_ in zip(first.patches, first.similarity_maps, strict=True):
        assert patch.similarity == pytest.approx(map_.max(), abs=1e-5)
        assert patch.box[0] < patch.box[2]


def test_several_images_come_back_in_order(client: Client, reference_pngs: list[bytes]) -> None:
    together = client.encode(*reference_pngs[:3])
    alone = [client.encode(data)[0] for data in reference_pngs[:3]]
    assert [image.image_id for image in together.images] == [image.image_id for image in alone]


def test_generation_gives_pictures_and_arrays(client: Client, bundle: Bundle) -> None:
    m = bundle.config.num_prototypes
    generation = client.generate(num_images=2, seed=7, steps=3, trace=True, edits=[Edit(3, "max")])
    assert generation.activations.shape == (2, m)
    assert [image.seed for image in generation.images] == [7, 8]
    assert generation.images[0].image.to_numpy().shape == (32, 32)
    assert generation.images[0].image.to_pil().size == (32, 32)
    assert generation.trace is not None
    assert generation.trace.activations.shape == (3, m)
    under = client.generate(activations=generation.activations[0], seed=7, steps=3)
    np.testing.assert_array_equal(under.images[0].image.to_numpy(), generation.images[0].image.to_numpy())


def test_an_edit_reaches_what_it_asks_for(client: Client, shirt: bytes, tmp_path: Path) -> None:
    before = client.encode(shirt)[0]
    edited = client.edit(before.image_id, [Edit(21, "max")], steps=5, rounds=2, preserve=[3])
    assert edited.image_id == before.image_id
    assert edited.activations.achieved[21] > edited.activations.before[21]
    assert edited.preserved == (3,)
    edited.image.save(tmp_path / "edited.png")
    assert (tmp_path / "edited.png").read_bytes() == edited.image.png
    assert edited.image.to_pil().size == (32, 32)


def test_prototypes_are_visualized_traced_and_diagnosed(client: Client, reference_pngs: list[bytes]) -> None:
    (shown,) = client.visualize(21, images=reference_pngs[:2], steps=2).prototypes
    assert (shown.prototype, shown.enhanced.to_pil().size) == (21, (32, 32))
    trace = client.trace(num_images=2, steps=4, num_previews=2)
    assert trace.activations.shape[0] == len(trace.timesteps) == 4
    assert [len(image.previews) for image in trace.images] == [2, 2]
    asked = {"prototypes": [3, 21], "num_samples": 6, "steps": 2, "seed": 1}
    diagnosis = client.diagnose(**asked)  # type: ignore[arg-type]
    assert diagnosis.effects.effect.shape == diagnosis.effects.p.shape
    assert np.isnan(diagnosis.effects.p[0, 3])
    page = client.diagnosis_page(**asked)  # type: ignore[arg-type]
    assert page.lstrip().startswith("<!doctype html>")
    by_attribute = client.diagnose(attributes=["Bag"], num_samples=6, steps=1)
    (bag,) = by_attribute.interventions
    assert (bag.prototype, bag.attribute) == (None, "Bag")
    assert by_attribute.effects.asked is not None
    assert by_attribute.effects.asked.shape == by_attribute.effects.effect.shape
    assert np.isnan(by_attribute.overlap).all()


def test_what_is_served_is_described(client: Client, bundle: Bundle) -> None:
    (model,) = client.models().models
    assert (model.name, model.digest, model.is_default) == (bundle.name, bundle.digest, True)
    assert model.image_shape == bundle.config.image.shape
    version = client.version()
    assert version.models == (model,)
    prototypes = client.prototypes(model=bundle.name)
    assert len(prototypes) == bundle.config.num_prototypes
    details = client.prototype(5)
    assert details.prototype.index == prototypes[5].index == 5
    assert isinstance(details.prototype.picture, Picture)
    assert client.health().is_ok
    assert client.readiness().engine == "ready"


def test_problems_are_exceptions_with_their_details(client: Client, shirt: bytes) -> None:
    with pytest.raises(BadRequestError, match="steps must be 1 to 200, not 500") as caught:
        client.generate(steps=500)
    assert caught.value.status == 422
    assert caught.value.title.startswith("Unprocessable")  # Python 3.13 has its newer name
    assert caught.value.request_id
    with pytest.raises(NotFoundError, match="there is no model 'other'"):
        client.encode(shirt, model="other")
    with pytest.raises(NotFoundError):
        client.prototype("a name / of ? none")
    with pytest.raises(TimedOutError):
        client.generate(num_images=32, steps=200, timeout_s=0.01)


def test_a_stream_tells_how_far_it_is_and_ends_in_the_result(client: Client) -> None:
    call = calls.generate(num_images=2, seed=7, steps=6, preview_every=3)
    *progress, result = client.stream(call)
    assert isinstance(result, Generation)
    assert all(isinstance(event, Progress) for event in progress)
    last = [event for event in progress if isinstance(event, Progress) and event.step == 6]
    assert {event.image for event in last} == {0, 1}
    assert all(event.preview is not None for event in last)
    np.testing.assert_array_equal(
        result.images[0].image.to_numpy(), client.generate(seed=7, steps=6).images[0].image.to_numpy()
    )


def test_what_is_refused_at_once_is_so_in_a_stream(client: Client) -> None:
    with pytest.raises(BadRequestError, match="steps"):
        list(client.stream(calls.generate(steps=500)))


def test_whoever_leaves_a_stream_stops_the_work(settings: Settings) -> None:
    with serving(settings) as url, Client(url) as client:
        for _event in client.stream(calls.generate(num_images=32, steps=200)):
            break
        eventually(url, "patronus_active_samples", 0.0)
        eventually(url, 'patronus_requests_total{endpoint="generate",finished_reason="disconnected"', 1.0)


def test_the_same_with_asyncio(real_url: str, client: Client, reference_pngs: list[bytes]) -> None:
    async def ask() -> None:
        async with AsyncClient(real_url) as patient:
            together = await asyncio.gather(*(patient.encode(data) for data in reference_pngs[:4]))
            expected = client.encode(*reference_pngs[:4])
            assert [found[0].image_id for found in together] == [e.image_id for e in expected.images]
            async with aclosing(patient.stream(calls.generate(seed=7, steps=6))) as stream:
                events = [event async for event in stream]
            assert isinstance(events[-1], Generation)
            assert events[-1].images[0].image == client.generate(seed=7, steps=6).images[0].image
            edited = await patient.edit(reference_pngs[0], [Edit(21, "max")], steps=3, rounds=1)
            assert edited.image.to_pil().size == (32, 32)
            shown = await patient.visualize(21, images=reference_pngs[:2], steps=2)
            assert shown.prototypes[0].prototype == 21
            assert (await patient.trace(steps=3)).activations.shape[0] == 3
            asked = {"prototypes": [3], "num_samples": 6, "steps": 1}
            assert (await patient.diagnose(**asked)).num_samples == 6  # type: ignore[arg-type]
            assert "<html" in await patient.diagnosis_page(**asked)  # type: ignore[arg-type]
            assert (await patient.generate(steps=2)).images
            assert (await patient.models()).models == client.models().models
            assert (await patient.version()).version == client.version().version
            assert len(await patient.prototypes()) == 30
            assert (await patient.prototype(5)).prototype.index == 5
            assert (await patient.health()).is_ok
            assert (await patient.readiness()).is_ok
            with pytest.raises(BadRequestError, match="steps"):
                await patient.trace(steps=500)

    asyncio.run(ask())


def test_cancelling_a_call_stops_the_work(settings: Settings) -> None:
    async def ask(url: str) -> None:
        async with AsyncClient(url) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.generate(num_images=32, steps=200), 0.3)

    with serving(settings) as url:
        asyncio.run(ask(url))
        eventually(url, "patronus_active_samples", 0.0)


def test_the_key_is_sent_and_its_lack_is_told(settings: Settings) -> None:
    with serving(replace(settings, api_keys=("key-of-eight",)), fake_runner) as url:
        with Client(url, api_key="key-of-eight") as client:
            assert client.models().models
        with Client(url) as client:
            assert client.health().is_ok
            with pytest.raises(AuthenticationError, match="API key"):
                client.models()


def test_a_client_over_its_rate_waits_as_long_as_it_is_told(settings: Settings) -> None:
    with serving(replace(settings, rate_limit="2/s", rate_burst=1), fake_runner) as url:
        with Client(url, retries=Retries(max_retries=9, first_wait_s=0.01)) as client:
            assert [len(client.models().models) for _ in range(2)] == [1, 1]
        with Client(url, retries=Retries(max_retries=0)) as client, pytest.raises(OverloadedError) as caught:
            [client.models() for _ in range(9)]
        assert caught.value.status == 429
        assert caught.value.retry_after_s == 1.0


def test_a_service_that_is_not_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with (
        Client(url, retries=Retries(max_retries=1, first_wait_s=0.0)) as client,
        pytest.raises(UnreachableError, match="ConnectError"),
    ):
        client.models()


def test_both_clients_have_a_method_for_every_call_of_the_api(real_url: str) -> None:
    document = httpx.get(f"{real_url}/openapi.json").json()
    named = {"healthz": "health", "readyz": "readiness"}
    for path in document["paths"]:
        first, *rest = path.strip("/").split("/")
        if first in ("metrics", "v2"):  # text for Prometheus, and a protocol that has clients of its own
            continue
        name = "prototype" if rest else named.get(first, first)
        for kind in (Client, AsyncClient):
            assert callable(getattr(kind, name)), f"{kind.__name__} has no {name} for {path}"


def test_the_distribution_exposes_exactly_the_client() -> None:
    source = (ROOT / "deploy" / "patronus_server" / "__init__.py").read_text()
    names: dict[str, object] = {}
    exec(compile(source, "patronus_server", "exec"), names)
    for name in client_package.__all__:
        assert names[name] is getattr(client_package, name)
    assert names["__all__"] == client_package.__all__


def test_where_and_what_is_between_are_read_as_pictures(real_url: str, reference_pngs: list[bytes]) -> None:
    with Client(real_url) as client:
        located = client.locate(reference_pngs[0], prototypes=[3], maps=True).prototypes[0]
        assert located.prototype == 3
        assert located.map is not None
        assert located.map.shape == (32, 32)
        swept = client.extrapolate(3, image=reference_pngs[0], values=[1.0, 2.0], steps=2)
        assert [item.asked for item in swept.images] == [1.0, 2.0]
        between = client.interpolate(*reference_pngs[:2], num_images=3, steps=2)
        assert [item.weight for item in between.images] == [0.0, 0.5, 1.0]
        assert between.images[0].achieved.shape == (30,)
        again = client.interpolate(*between.image_ids, num_images=3, steps=2)
        assert again.image_ids == between.image_ids
        np.testing.assert_allclose(again.images[1].achieved, between.images[1].achieved, atol=1e-3)


def test_a_prototype_is_renamed_and_found_by_its_name(settings: Settings) -> None:
    with serving(settings, fake_runner) as url, Client(url) as client:
        assert client.rename(5, "left sleeve of it").prototype.name == "left sleeve of it"
        assert client.prototype("left sleeve of it").prototype.index == 5
        assert client.rename(5, None).prototype.name is None
