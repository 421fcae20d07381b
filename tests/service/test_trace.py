"""What a traced sample shows, held against what can be computed without tracing."""

from __future__ import annotations

import asyncio
import base64
import io
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from model.emergence import NEVER, emergence_timesteps
from service.pipeline.trace import Trace, Tracer
from service.settings import Settings
from tests.service.conftest import b64, fake_runner, picture, serving

Float32 = npt.NDArray[np.float32]


def tracer_of(encode: Any, *, num_samples: int, steps: int, num_previews: int = 0) -> Tracer:
    return Tracer(
        encode,
        num_samples=num_samples,
        timesteps=np.arange(steps, 0, -1),
        num_prototypes=2,
        num_previews=num_previews,
    )


async def sum_and_first(x_0: Float32) -> Float32:
    return np.stack([x_0.sum(axis=(1, 2, 3)), x_0[:, 0, 0, 0]], axis=1)


def image(value: float) -> Float32:
    return np.full((1, 2, 2), value, np.float32)


def test_tracer_puts_every_steps_activations_in_their_place_whatever_their_order() -> None:
    async def scenario() -> Trace:
        tracer = tracer_of(sum_and_first, num_samples=2, steps=3)
        for sample, step in ((1, 1), (0, 1), (1, 2), (1, 3), (0, 2), (0, 3)):
            tracer.on_step(sample, step, image(10 * sample + step))
        return await tracer.run()

    trace = asyncio.run(asyncio.wait_for(scenario(), 20))
    np.testing.assert_array_equal(trace.activations[..., 1], [[1, 2, 3], [11, 12, 13]])
    np.testing.assert_array_equal(trace.activations[..., 0], 4 * trace.activations[..., 1])


def test_previews_are_spread_over_the_steps_and_end_with_the_last() -> None:
    async def scenario() -> Trace:
        tracer = tracer_of(sum_and_first, num_samples=1, steps=10, num_previews=4)
        for step in range(1, 11):
            tracer.on_step(0, step, image(step / 10))
        return await tracer.run()

    trace = asyncio.run(asyncio.wait_for(scenario(), 20))
    assert trace.preview_steps == (1, 4, 7, 10)
    assert [int(preview[0, 0, 0]) for preview in trace.previews[0]] == [140, 178, 217, 255]


def test_more_previews_than_steps_are_one_for_each_step() -> None:
    async def scenario() -> Trace:
        tracer = tracer_of(sum_and_first, num_samples=1, steps=2, num_previews=9)
        for step in (1, 2):
            tracer.on_step(0, step, image(0.0))
        return await tracer.run()

    assert asyncio.run(asyncio.wait_for(scenario(), 20)).preview_steps == (1, 2)


def test_failed_encoding_reaches_who_awaits_the_trace() -> None:
    async def broken(x_0: Float32) -> Float32:
        raise RuntimeError("no")

    async def scenario() -> None:
        tracer = tracer_of(broken, num_samples=1, steps=1)
        tracer.on_step(0, 1, image(0.0))
        with pytest.raises(RuntimeError):
            await tracer.run()

    asyncio.run(asyncio.wait_for(scenario(), 20))


def post(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    parsed: dict[str, Any] = answer.json()
    return parsed


def test_trace_ends_at_the_activations_of_the_image_that_generate_gives(real: httpx.Client) -> None:
    body = {"steps": 12, "num_images": 3, "seed": 4}
    traced, generated = post(real, "/trace", body), post(real, "/generate", body)
    assert len(traced["timesteps"]) == 12
    assert traced["timesteps"] == sorted(traced["timesteps"], reverse=True)
    assert traced["asked"] == generated["activations"]
    for one, other in zip(traced["images"], generated["images"], strict=True):
        assert one["seed"] == other["seed"]
        # The picture is rounded to 8 bits before it is encoded, x_0_hat is not.
        np.testing.assert_allclose(one["activations"][-1], other["achieved"], atol=0.05)
        assert one["previews"][-1]["image"] == other["image"]  # DDIM ends at x_0_hat
    curves = np.array([one["activations"] for one in traced["images"]])
    np.testing.assert_allclose(traced["activations"], curves.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("way", [{}, {"start": "auto"}, {"inversion": "bdia"}])
def test_run_of_what_an_edit_drove_is_traced_and_ends_at_the_edited_picture(
    real: httpx.Client, reference_pngs: list[bytes], way: dict[str, str]
) -> None:
    body = {**way, "image": b64(reference_pngs[0]), "steps": 10}
    edited = post(real, "/edit", {**body, "edits": [{"prototype": 21, "op": "max"}], "decouple": True})
    s = edited["activations"]
    assert np.abs(np.subtract(s["driven"], s["asked"])).max() > 0.1  # the raw edit is another run
    driven = {"x_T": "inverted", "activations": s["driven"], "start": edited["start_timestep"]}
    again = post(real, "/generate", {**body, **driven, "trace": True})
    assert again["activations_from"] == "request"
    one, other = (np.asarray(picture(text), float) for text in (again["images"][0]["image"], edited["image"]))
    assert np.abs(one - other).max() <= 1  # driven is rounded to 6 decimals
    np.testing.assert_allclose(again["images"][0]["achieved"], s["achieved"], atol=0.02)
    assert again["trace"]["timesteps"][0] <= edited["start_timestep"]


def test_emergence_is_what_the_curves_say(real: httpx.Client) -> None:
    traced = post(real, "/trace", {"steps": 15, "num_images": 5, "num_previews": 0})
    timesteps = np.array(traced["timesteps"])
    per_image = []
    for one in traced["images"]:
        expected = emergence_timesteps(np.array(one["activations"], np.float32), timesteps)
        assert one["emergence"] == [None if t == NEVER else t for t in expected.tolist()]
        assert one["previews"] == []
        per_image.append(one["emergence"])
    for j, median in enumerate(traced["emergence"]):
        emerged = [row[j] for row in per_image if row[j] is not None]
        assert traced["num_emerged"][j] == len(emerged)
        assert median == (float(np.median(emerged)) if emerged else None)


def test_trace_field_of_generate_adds_the_same_trace(real: httpx.Client) -> None:
    body = {"steps": 6, "seed": 9}
    traced = post(real, "/trace", {**body, "num_previews": 0})
    added = post(real, "/generate", {**body, "trace": True})["trace"]
    assert added == {name: traced[name] for name in added}
    assert post(real, "/generate", body)["trace"] is None


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmpp_2m"])
def test_tracing_does_not_change_the_image(real: httpx.Client, sampler: str) -> None:
    body = {"steps": 6, "seed": 9, "sampler": sampler}
    traced, plain = (post(real, "/generate", {**body, "trace": on}) for on in (True, False))
    assert traced["images"][0]["image"] == plain["images"][0]["image"]


def test_picture_of_a_trace_is_a_row_of_previews_for_each_image(real: httpx.Client) -> None:
    body = {"steps": 6, "num_images": 2, "num_previews": 3}
    answer = real.post("/trace", json=body, headers={"Accept": "image/png"})
    assert Image.open(io.BytesIO(answer.content)).size == (3 * 32, 2 * 32)
    previews = [one["previews"] for one in post(real, "/trace", body)["images"]]
    corner = Image.open(io.BytesIO(answer.content)).crop((64, 32, 96, 64))
    shown = Image.open(io.BytesIO(base64.b64decode(previews[1][2]["image"])))
    np.testing.assert_array_equal(np.asarray(corner), np.asarray(shown))


def test_traces_too_long_for_an_answer_are_refused(settings: Settings) -> None:
    with serving(replace(settings, max_images=64), fake_runner) as url:
        answer = httpx.post(f"{url}/trace", json={"steps": 200, "num_images": 51})
        assert answer.status_code == 422
        assert "at most 10000" in answer.json()["detail"]
        longest = {"steps": 200, "num_images": 50, "num_previews": 0}
        assert httpx.post(f"{url}/trace", json=longest, timeout=60).status_code == 200
