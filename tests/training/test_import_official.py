"""An official checkpoint becomes a bundle whose graphs give the official numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from model.bundle import DENOISER, ENCODER, MANIFEST, PICTURES, WEIGHTS, Bundle
from model.official import OfficialCheckpointError
from model.samplers import ddim, official_ddim_inversion
from model.schedule import NoiseSchedule
from model.statistics import ActivationStatistics
from tests.model.official_reference import official_config, random_official, write_official
from training.data import Dataset
from training.export import ExportError
from training.import_official import import_official
from training.losses import distinctness_loss

TOLERANCE = 1e-4

Expected = dict[str, np.ndarray]

READS_EPS = [1.0, -1.0, np.inf, -1.0, 1.0, 0.0, 0.0, 0.0]
"""Coefficients under which x_next is eps itself: x_0_hat = x_t + eps, x_next = x_0_hat - x_t."""


def assert_agrees(found: Any, expected: Any) -> None:
    """Within 1e-4 of the largest value, everywhere."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def session(path: Path | bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def step(
    graph: ort.InferenceSession, x_t: np.ndarray, timesteps: np.ndarray, s: np.ndarray, rows: Any
) -> np.ndarray:
    """x_next of one denoise step; `rows` are coefficients, (B, 8)."""
    zero = np.zeros_like(x_t)
    inputs = {
        "x_t": x_t,
        "timesteps": timesteps,
        "activations": s,
        "memory": zero,
        "noise": zero,
        "coefficients": np.asarray(rows, np.float32),
    }
    x_next: np.ndarray = graph.run(["x_next"], inputs)[0]
    return x_next


# The official checkpoint and its numbers, through ONNX Runtime.


@pytest.fixture(scope="module")
def directory() -> Path:
    found = Path(__file__).parents[3] / "shared" / "reference" / "official-fmnist"
    if not found.is_dir():
        pytest.skip(f"{found} is missing: it holds an official checkpoint and the numbers it must give")
    return found


@pytest.fixture(scope="module")
def expected(directory: Path) -> Expected:
    with np.load(directory / "expected.npz") as arrays:
        return {name: arrays[name] for name in arrays}


@pytest.fixture(scope="module")
def bundle(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return import_official(directory, tmp_path_factory.mktemp("official") / "bundle", name="official")


def test_the_exported_encoder_gives_the_official_numbers(bundle: Bundle, expected: Expected) -> None:
    graph = onnx.load(bundle.path(ENCODER))
    last_relu = [node for node in graph.graph.node if node.op_type == "Relu"][3].output[0]
    graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(last_relu))
    names = ["activations", "similarity_maps", last_relu]
    s, maps, features = session(graph.SerializeToString()).run(names, {"x_0": expected["x0"]})
    assert_agrees(features, expected["features"])
    assert_agrees(s, expected["activations"])
    similarity = np.exp(maps.astype(np.float64))
    assert_agrees((1 - 1e-4 * similarity) / (similarity - 1), expected["distances"])
    np.testing.assert_array_equal(maps.reshape(4, 30, -1).argmax(axis=2), expected["argmin"])


def test_the_exported_denoiser_gives_the_official_numbers(bundle: Bundle, expected: Expected) -> None:
    x_t, timesteps, s = (expected[name] for name in ("x_t", "timesteps", "activations"))
    eps = step(session(bundle.path(DENOISER)), x_t, timesteps, s, [READS_EPS] * 4)
    assert_agrees(eps, expected["eps_pred"])


def test_a_thousand_exported_steps_down_and_up_end_at_the_official_images(
    bundle: Bundle, expected: Expected
) -> None:
    schedule = NoiseSchedule.from_config(bundle.config.schedule)
    down, up = ddim(schedule, 1000), official_ddim_inversion(schedule)
    graph = session(bundle.path(DENOISER))
    x = np.concatenate([expected["ddim_x_T"], expected["x0"][:2]])  # two rows down, two up
    s = np.concatenate([expected["activations"][:2]] * 2)
    for i in range(1000):
        told = np.array([down.timesteps[i]] * 2 + [up.timesteps[i]] * 2)
        x = step(graph, x, told, s, [down.coefficients[i]] * 2 + [up.coefficients[i]] * 2)
    assert_agrees(x[:2], expected["ddim_x0"])
    assert_agrees(x[2:], expected["inverted_x_T"])


def test_distinctness_of_the_official_prototypes_is_the_official_one(
    directory: Path, expected: Expected
) -> None:
    state = torch.load(directory / "ckpt.tar", weights_only=True)["model"]
    prototypes = state["proactBlock.prototype_vectors"].flatten(1)
    for margin in (0.2, 0.5):
        loss = distinctness_loss(prototypes, "cosine", margin)
        assert_agrees(loss, expected[f"distinct_cos_{margin}"])
    assert_agrees(distinctness_loss(prototypes, "euclidean", 1.0), expected["distinct_l2_1.0"])


def test_the_bundle_says_where_it_came_from_and_what_it_lacks(bundle: Bundle) -> None:
    assert bundle.name == "official"
    assert bundle.statistics is None
    assert bundle.pictures is None
    assert bundle.provenance["imported_from"] == "official checkpoint"
    assert bundle.provenance["official_names"]["ds_name"] == "FMNIST_clean"
    assert bundle.provenance["checkpoint_sha256"].startswith("8329d7ec")
    assert set(bundle.metrics) == {"export_largest_difference"}
    manifest = json.loads(bundle.path(MANIFEST).read_text())
    assert manifest["statistics"] is None
    assert sorted(manifest["files"]) == [DENOISER, ENCODER, WEIGHTS]
    assert Bundle.load(bundle.directory).digest == bundle.digest


# Other checkpoints.


def test_a_colour_network_with_attention_computes_the_same_through_onnx(tmp_path: Path) -> None:
    config = official_config(
        image=(3, 64, 64),
        base=16,
        multipliers=(1, 2, 4),
        attention=(False, False, True),
        num_prototypes=100,
    )
    reference = random_official(config, num_residual_blocks=1)
    directory = write_official(tmp_path / "official", config, {"model": reference.state_dict()})
    bundle = import_official(directory, tmp_path / "bundle", name="colour")
    x_0 = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    x_t, timesteps = x_0.flip(0) * 2, torch.tensor([5, 900])
    with torch.no_grad():
        s = reference.proactBlock.activations(x_0)
        eps = reference.eps(x_t, timesteps, s)
    (found,) = session(bundle.path(ENCODER)).run(["activations"], {"x_0": x_0.numpy()})
    assert_agrees(found, s)
    graph = session(bundle.path(DENOISER))
    assert_agrees(step(graph, x_t.numpy(), timesteps.numpy(), s.numpy(), [READS_EPS] * 2), eps)


@pytest.fixture
def tiny_official(tmp_path: Path) -> Path:
    config = official_config(image=(1, 16, 16), multipliers=(1, 2), num_prototypes=5)
    state = random_official(config, num_residual_blocks=1).state_dict()
    return write_official(tmp_path / "official", config, {"model": state})


def test_with_a_data_set_statistics_and_pictures_are_measured_on_it(
    tiny_official: Path, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 1, 16, 16), dtype=np.uint8)
    train = Dataset(pixels, np.arange(20) % 2, ("even", "odd"))
    test = Dataset(pixels[::-1].copy(), np.arange(20) % 2, ("even", "odd"))
    bundle = import_official(
        tiny_official, tmp_path / "bundle", name="tiny", dataset=(train, test), emergence_samples=3
    )
    (s,) = session(bundle.path(ENCODER)).run(["activations"], {"x_0": pixels.astype(np.float32) / 127.5 - 1})
    assert bundle.statistics is not None
    np.testing.assert_allclose(bundle.statistics.mean, ActivationStatistics.measure(s).mean, rtol=1e-4)
    assert bundle.pictures is not None
    np.testing.assert_array_equal(bundle.pictures.exemplar_images, pixels[s.argmax(axis=0)])
    np.testing.assert_array_equal(bundle.pictures.reference_images[0], test.pixels[0])
    assert bundle.attributes is not None
    assert bundle.attributes.names == ("even", "odd")
    emergence = bundle.metrics["emergence"]
    assert (emergence["num_images"], emergence["s_from"]) == (3, "test images")
    assert PICTURES in json.loads(bundle.path(MANIFEST).read_text())["files"]
    assert bundle.provenance["num_training_images"] == 20


def test_with_a_data_set_a_prior_may_be_trained(tiny_official: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 1, 16, 16), dtype=np.uint8)
    images = Dataset(pixels, np.zeros(20, np.int64))
    bundle = import_official(
        tiny_official,
        tmp_path / "bundle",
        name="tiny",
        dataset=(images, images),
        prior_steps=3,
        emergence_samples=2,
    )
    assert bundle.prior is not None
    assert bundle.metrics["emergence"]["s_from"] == "prior"
    assert bundle.attributes is None
    assert bundle.prior.num_prototypes == 5
    assert bundle.path("prior.onnx").exists()


def test_a_data_set_of_other_images_is_refused(
    tiny_official: Path, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"images are \(1, 8, 8\), .* takes \(1, 16, 16\)"):
        import_official(tiny_official, tmp_path / "bundle", name="x", dataset=(tiny_dataset, tiny_dataset))
    assert not (tmp_path / "bundle").exists()


def test_nothing_is_left_behind_where_the_checkpoint_is_refused(tiny_official: Path, tmp_path: Path) -> None:
    (tiny_official / "ckpt.tar").write_bytes(b"")
    with pytest.raises(OfficialCheckpointError, match=r"ckpt\.tar is refused"):
        import_official(tiny_official, tmp_path / "bundle", name="x")
    assert [path.name for path in tmp_path.iterdir()] == ["official"]


def test_a_directory_that_is_no_bundle_is_not_replaced(tiny_official: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    with pytest.raises(ExportError, match="thesis exists and is no bundle"):
        import_official(tiny_official, tmp_path / "thesis", name="x")
