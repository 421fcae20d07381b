"""Generation with nothing given, from a bundle that has a latent prior."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import onnxruntime as ort
import pytest

from model.bundle import Bundle
from model.samplers import dpmpp_2m
from model.schedule import NoiseSchedule
from service.pipeline.randomness import Stream, initial_noise
from service.settings import Settings
from tests.service.conftest import serving


@pytest.fixture(scope="module")
def client(settings: Settings, tiny_prior_bundle: Path) -> Iterator[httpx.Client]:
    with (
        serving(replace(settings, bundle=(tiny_prior_bundle,))) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def test_activations_come_from_the_prior_and_each_has_its_own(client: httpx.Client) -> None:
    answer = client.post("/generate", json={"num_images": 3, "steps": 4, "seed": 5}).json()
    assert answer["activations_from"] == "prior"
    s = np.array(answer["activations"])
    assert len({tuple(row) for row in s.tolist()}) == 3
    assert answer["timings"]["inference_s"] > 0.0


def test_the_service_samples_as_the_graph_is_meant(client: httpx.Client, tiny_prior_bundle: Path) -> None:
    """x_T of s by the seed, 8 steps of DPM-Solver++ through prior.onnx, then back from normal scores."""
    bundle = Bundle.load(tiny_prior_bundle)
    assert bundle.prior is not None
    assert bundle.statistics is not None
    table = dpmpp_2m(NoiseSchedule.from_config(bundle.prior.schedule), 8)
    session = ort.InferenceSession(bundle.path("prior.onnx"), providers=["CPUExecutionProvider"])
    z = initial_noise(9, (bundle.config.num_prototypes,), Stream.ACTIVATIONS)[None]
    memory = noise = np.zeros_like(z)
    for timestep, row in zip(table.timesteps, table.coefficients.astype(np.float32), strict=True):
        feeds = {
            "x_t": z,
            "timesteps": np.array([timestep]),
            "memory": memory,
            "noise": noise,
            "coefficients": row[None],
        }
        z, memory, _ = session.run(None, feeds)
    answer = client.post("/generate", json={"seed": 9, "steps": 2}).json()
    np.testing.assert_allclose(answer["activations"], bundle.statistics.from_scores(z), atol=2e-4)


def test_a_seed_gives_the_same_activations_alone_and_in_a_batch(client: httpx.Client) -> None:
    together = client.post("/generate", json={"num_images": 4, "seed": 20, "steps": 3}).json()
    alone = client.post("/generate", json={"seed": 22, "steps": 3}).json()
    np.testing.assert_allclose(together["activations"][2], alone["activations"][0], atol=1e-4)


def test_edits_apply_to_what_the_prior_gave(client: httpx.Client) -> None:
    plain = client.post("/generate", json={"seed": 1, "steps": 2}).json()
    edits = [{"prototype": 2, "op": "max"}]
    edited = client.post("/generate", json={"seed": 1, "steps": 2, "edits": edits}).json()
    before, after = (np.array(answer["activations"][0]) for answer in (plain, edited))
    assert after[2] > before[2]
    np.testing.assert_array_equal(np.delete(after, 2), np.delete(before, 2))


def test_an_impossible_edit_is_refused_before_anything_is_sampled(client: httpx.Client) -> None:
    edits = [{"prototype": 99, "op": "max"}]
    assert client.post("/generate", json={"edits": edits}).status_code == 404


def test_activations_of_the_request_are_not_the_priors(client: httpx.Client) -> None:
    answer = client.post("/generate", json={"activations": [1.0, 1.0, 1.0, 1.0], "steps": 2}).json()
    assert answer["activations_from"] == "request"


def test_without_a_prior_activations_are_resampled_and_the_answer_says_so(
    settings: Settings, tiny_bundle: Path
) -> None:
    with (
        serving(replace(settings, bundle=(tiny_bundle,))) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        answer = client.post("/generate", json={"num_images": 2, "steps": 3}).json()
    assert answer["activations_from"] == "resampled_from_training_statistics"
    assert answer["activations"][0] != answer["activations"][1]
