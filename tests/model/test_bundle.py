"""A bundle written by training loads as it was meant, and every damage is named."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors

from model.bundle import (
    DENOISER,
    ENCODER,
    MANIFEST,
    PICTURES,
    REQUIRED_FILES,
    WEIGHTS,
    Bundle,
    BundleError,
    graph_signature,
    write_manifest,
)
from model.config import config_to_dict
from model.patronus import Patronus
from model.statistics import ActivationStatistics
from model.transforms import crop
from training.data import Dataset
from training.exemplars import encode_all


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    change(manifest)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


def accept(bundle: Path, file: str) -> None:
    """Make the manifest agree with a changed file, so that what is inside is looked at."""
    sha256 = hashlib.sha256((bundle / file).read_bytes()).hexdigest()
    rewrite(bundle, lambda manifest: manifest["files"][file].update(sha256=sha256))


def test_a_manifest_of_before_there_were_other_scales_says_today_what_it_said() -> None:
    shipped = Path(__file__).parents[2] / "bundles" / "fashion-mnist"
    written = json.loads((shipped / MANIFEST).read_text())["config"]
    config = Bundle.load(shipped).config
    assert "num_wide_prototypes" not in written["encoder"]
    assert config.encoder.num_prototypes_by_scale == {"local": config.num_prototypes}
    assert config_to_dict(config) == written
    assert list(config_to_dict(config)["encoder"]) == list(written["encoder"])


def test_a_bundle_holds_what_training_put_in(
    tiny_bundle: Path, tiny_patronus: Patronus, tiny_dataset: Dataset
) -> None:
    bundle = Bundle.load(tiny_bundle)
    assert bundle.name == "tiny model"
    assert bundle.config == tiny_patronus.config
    assert bundle.digest == hashlib.sha256((tiny_bundle / MANIFEST).read_bytes()).hexdigest()
    assert bundle.metrics["probe"] == {"accuracy_test": 0.5}
    assert bundle.metrics["export_largest_difference"] <= 1e-4
    assert bundle.provenance["num_training_images"] == len(tiny_dataset)
    assert len(bundle.prototypes) == tiny_patronus.config.num_prototypes
    assert bundle.statistics is not None
    assert bundle.pictures is not None
    activations, _ = encode_all(tiny_patronus, tiny_dataset.pixels)
    expected = ActivationStatistics.measure(activations)
    np.testing.assert_allclose(bundle.statistics.quantiles, expected.quantiles, rtol=1e-5)
    np.testing.assert_allclose(bundle.pictures.exemplar_similarities, activations.max(axis=0))
    images = bundle.pictures.exemplar_images
    np.testing.assert_array_equal(images, tiny_dataset.pixels[activations.argmax(axis=0)])
    patches = bundle.pictures.patches
    assert patches is not None
    nearest = np.sort(activations, axis=0)[:-9:-1].T  # (m, 8), largest first
    np.testing.assert_allclose(patches.similarities, nearest)
    for j, row in enumerate(patches.pixels):
        for i, patch in enumerate(row):
            image = tiny_dataset.pixels[patches.image_indices[j, i]]
            np.testing.assert_array_equal(patch, crop(image, patches.boxes[j, i]))
    assert bundle.attributes is not None
    assert bundle.attributes.names == tiny_dataset.class_names
    assert bundle.metrics["emergence"]["num_images"] == 8
    assert any(prototype.emergence_timestep is not None for prototype in bundle.prototypes)
    assert all(prototype.emergence_share is not None for prototype in bundle.prototypes)
    x0, y0, x1, y1 = bundle.pictures.exemplar_boxes.T
    assert ((x0 >= 0) & (x0 < x1) & (x1 <= 8) & (y0 >= 0) & (y0 < y1) & (y1 <= 8)).all()


def test_the_weights_of_a_bundle_make_the_same_model(tiny_bundle: Path, tiny_patronus: Patronus) -> None:
    again = Patronus(Bundle.load(tiny_bundle).config)
    again.load_state_dict(load_tensors(tiny_bundle / WEIGHTS))
    for (name, one), other in zip(
        tiny_patronus.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("file", [ENCODER, DENOISER])
def test_exported_graphs_take_what_the_signature_says(tiny_bundle: Path, file: str) -> None:
    found = {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim
        )
        for value in onnx.load(tiny_bundle / file).graph.input
    }
    assert found == graph_signature(file, Bundle.load(tiny_bundle).config)


def test_exported_graphs_carry_no_paths_of_the_machine_that_made_them(tiny_bundle: Path) -> None:
    for file in (ENCODER, DENOISER):
        assert str(Path(__file__).parents[2]).encode() not in (tiny_bundle / file).read_bytes()


@pytest.mark.parametrize("file", [*REQUIRED_FILES, PICTURES, MANIFEST])
def test_a_missing_file_is_named(bundle: Path, file: str) -> None:
    (bundle / file).unlink()
    with pytest.raises(BundleError, match=file):
        Bundle.load(bundle)


@pytest.mark.parametrize("file", [*REQUIRED_FILES, PICTURES])
def test_a_flipped_byte_is_found_and_the_file_named(bundle: Path, file: str) -> None:
    content = bytearray((bundle / file).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / file).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{file} has sha256 .*, the manifest says"):
        Bundle.load(bundle)


def test_another_format_version_is_refused(bundle: Path) -> None:
    rewrite(bundle, lambda manifest: manifest.update(format_version=99))
    with pytest.raises(BundleError, match="format version is 99, this program reads 1 and 2"):
        Bundle.load(bundle)


@pytest.mark.parametrize("version", [True, 1.0, "1", None])
def test_a_format_version_is_a_whole_number(bundle: Path, version: Any) -> None:
    rewrite(bundle, lambda manifest: manifest.update(format_version=version))
    with pytest.raises(BundleError, match="format version is"):
        Bundle.load(bundle)


def test_a_bundle_of_format_1_loads_without_what_it_does_not_know(bundle: Path) -> None:
    def older(manifest: dict[str, Any]) -> None:
        manifest.update(format_version=1)
        manifest.pop("attributes")
        manifest["prototypes"] = [{"name": None, "emergence_timestep": None}] * 4

    arrays = load_file(bundle / PICTURES)
    save_file({name: arrays[name] for name in arrays if not name.startswith("patch_")}, bundle / PICTURES)
    accept(bundle, PICTURES)
    rewrite(bundle, older)
    loaded = Bundle.load(bundle)
    assert loaded.attributes is None
    assert loaded.pictures is not None
    assert loaded.pictures.patches is None
    assert [prototype.emergence_spread for prototype in loaded.prototypes] == [None] * 4


def test_a_bundle_keeps_measured_effects_and_loads_without(bundle: Path) -> None:
    loaded = Bundle.load(bundle)
    assert loaded.effects is not None
    assert loaded.effects.mean.shape == (4, 4)
    assert loaded.metrics["effects"]["num_samples"] == loaded.effects.num_samples == 32
    rewrite(bundle, lambda manifest: manifest.pop("effects"))
    assert Bundle.load(bundle).effects is None


@pytest.mark.parametrize(
    ("effects", "message"),
    [
        ({"mean": [[0.0] * 3] * 3, "spread": [[0.0] * 3] * 3, "num_samples": 8}, "effects describe 3 protot"),
        ({"mean": [[0.0] * 4] * 4, "num_samples": 8}, "effects lack 'spread'"),
        ([], "effects are malformed"),
    ],
)
def test_effects_of_another_model_are_refused(bundle: Path, effects: Any, message: str) -> None:
    rewrite(bundle, lambda manifest: manifest.update(effects=effects))
    with pytest.raises(BundleError, match=message):
        Bundle.load(bundle)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_not_json_is_named(bundle: Path, content: bytes) -> None:
    (bundle / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{MANIFEST} is not JSON"):
        Bundle.load(bundle)


def test_a_manifest_that_is_no_object_is_named(bundle: Path) -> None:
    (bundle / MANIFEST).write_text("[1]")
    with pytest.raises(BundleError, match=rf"{MANIFEST} must hold an object, not list"):
        Bundle.load(bundle)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "inner/file", "..", ".", ""])
def test_file_names_cannot_leave_the_bundle(bundle: Path, name: str) -> None:
    rewrite(bundle, lambda manifest: manifest["files"].update({name: {"sha256": ""}}))
    with pytest.raises(BundleError, match=r"files lists .*, which no bundle has"):
        Bundle.load(bundle)


@pytest.mark.parametrize("file", [*REQUIRED_FILES, PICTURES])
def test_a_manifest_must_list_every_required_file(bundle: Path, file: str) -> None:
    rewrite(bundle, lambda manifest: manifest["files"].pop(file))
    with pytest.raises(BundleError, match=f"does not list {file}"):
        Bundle.load(bundle)


@pytest.mark.parametrize("entry", [None, 3, {}, {"sha256": None}])
def test_a_file_without_its_hash_is_refused(bundle: Path, entry: Any) -> None:
    rewrite(bundle, lambda manifest: manifest["files"].update({ENCODER: entry}))
    with pytest.raises(BundleError, match=ENCODER):
        Bundle.load(bundle)


@pytest.mark.parametrize(
    "field", ["config", "statistics", "prototypes", "name", "metrics", "provenance", "files"]
)
def test_a_manifest_without_a_field_is_refused(bundle: Path, field: str) -> None:
    rewrite(bundle, lambda manifest: manifest.pop(field))
    with pytest.raises(BundleError, match=f"{MANIFEST}.*{field}"):
        Bundle.load(bundle)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 5),
        ("metrics", [1]),
        ("provenance", None),
        ("prototypes", None),
        ("prototypes", {"name": "a"}),
        ("prototypes", [3, 3, 3, 3]),
        ("prototypes", [{"name": 5}] * 4),
        ("prototypes", [{"colour": "red"}] * 4),
        ("prototypes", [{"emergence_share": 1.5}] * 4),
        ("prototypes", [{"emergence_quartiles": [3.0]}] * 4),
        ("prototypes", [{"emergence_quartiles": [3.0, 2.0]}] * 4),
        ("attributes", {"names": ["hat"]}),
        ("attributes", [1]),
        ("config", {"image": {"channels": 7}}),
        ("config", {"denoiser": {"norm_groups": 0}}),
        ("config", []),
        ("statistics", {"mean": [1.0]}),
        ("statistics", None),
        ("files", []),
    ],
)
def test_a_mistyped_field_is_refused_and_the_manifest_named(bundle: Path, field: str, value: Any) -> None:
    rewrite(bundle, lambda manifest: manifest.update({field: value}))
    with pytest.raises(BundleError, match=MANIFEST):
        Bundle.load(bundle)


def test_statistics_of_another_number_of_prototypes_are_refused(bundle: Path) -> None:
    s = np.random.default_rng(0).random((10, 3), dtype=np.float32)
    other = ActivationStatistics.measure(s).to_dict()
    rewrite(bundle, lambda manifest: manifest.update(statistics=other))
    with pytest.raises(BundleError, match="statistics describe 3 prototypes, the model has 4"):
        Bundle.load(bundle)


def test_attributes_of_another_number_of_prototypes_are_refused(bundle: Path) -> None:
    other = {
        "names": ["hat"],
        "auroc": [[0.5]] * 3,
        "probe_weights": [[0.0] * 3],
        "probe_biases": [0.0],
        "probe_auroc": [0.5],
        "probe_low": [-1.0],
        "probe_high": [1.0],
    }
    rewrite(bundle, lambda manifest: manifest.update(attributes=other))
    with pytest.raises(BundleError, match="attributes describe 3 prototypes, the model has 4"):
        Bundle.load(bundle)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("exemplar_images", np.zeros((4, 1, 9, 8), np.uint8), "exemplar_images is uint8"),
        ("exemplar_images", np.zeros((4, 1, 8, 8), np.float32), "exemplar_images is float32"),
        ("exemplar_boxes", np.zeros((3, 4), np.int64), "exemplar_boxes is int64"),
        ("reference_images", np.zeros((2, 3, 8, 8), np.uint8), "reference_images is"),
        ("exemplar_similarities", None, "lacks exemplar_similarities"),
        ("patch_boxes", None, "lacks patch_boxes"),
        ("patch_pixels", None, "lacks patch_pixels"),
        ("patch_boxes", np.zeros((4, 0, 4), np.int64), "patch_boxes holds no patch"),
        ("patch_boxes", np.zeros((4, 8), np.int64), "patch_boxes is int64"),
        ("patch_boxes", np.tile([0, 0, 9, 3], (4, 8, 1)), "patch_boxes leave the 8x8 image"),
        ("patch_boxes", np.tile([3, 0, 3, 3], (4, 8, 1)), "patch_boxes leave the 8x8 image, or are empty"),
        ("patch_boxes", np.tile([0, 0, 1, 1], (4, 8, 1)), "patch_pixels has .* values, the boxes need 32"),
        ("patch_similarities", np.zeros((4, 7), np.float32), "patch_similarities is float32"),
        ("patch_image_indices", np.zeros((4, 8), np.float32), "patch_image_indices is float32"),
    ],
)
def test_pictures_of_another_shape_are_refused(bundle: Path, name: str, array: Any, message: str) -> None:
    arrays = load_file(bundle / PICTURES)
    arrays.pop(name)
    if array is not None:
        arrays[name] = array
    save_file(arrays, bundle / PICTURES)
    accept(bundle, PICTURES)
    with pytest.raises(BundleError, match=rf"{PICTURES}.*{message}"):
        Bundle.load(bundle)


def test_a_bundle_may_have_neither_statistics_nor_pictures(bundle: Path) -> None:
    rewrite(
        bundle,
        lambda manifest: (
            manifest.update(statistics=None, attributes=None, effects=None),
            manifest["files"].pop(PICTURES),
        ),
    )
    loaded = Bundle.load(bundle)
    assert loaded.statistics is None
    assert loaded.pictures is None


def test_pictures_without_statistics_are_refused(bundle: Path) -> None:
    rewrite(bundle, lambda manifest: manifest.update(statistics=None))
    with pytest.raises(BundleError, match=f"statistics is null, but files lists {PICTURES}"):
        Bundle.load(bundle)


def test_attributes_without_statistics_are_refused(bundle: Path) -> None:
    rewrite(bundle, lambda manifest: (manifest.update(statistics=None), manifest["files"].pop(PICTURES)))
    with pytest.raises(BundleError, match="attributes need statistics, which are null"):
        Bundle.load(bundle)


def test_pictures_that_are_no_safetensors_are_refused(bundle: Path) -> None:
    (bundle / PICTURES).write_bytes(b"not one")
    accept(bundle, PICTURES)
    with pytest.raises(BundleError, match=f"{PICTURES} is not a safetensors file"):
        Bundle.load(bundle)


def test_a_manifest_is_not_written_over_missing_files(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    with pytest.raises(BundleError, match=rf"{ENCODER} is missing: write it before the manifest"):
        write_manifest(
            tmp_path,
            name="x",
            config=bundle.config,
            statistics=bundle.statistics,
            prototypes=bundle.prototypes,
            metrics={},
            provenance={},
        )
