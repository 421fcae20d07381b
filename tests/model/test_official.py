"""Official checkpoints: the numbers that they must give, and what is refused, by name."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.config import ImageConfig, ScheduleConfig
from model.official import OfficialCheckpoint, OfficialCheckpointError, read_official
from model.patronus import DenoiseStep
from model.samplers import ddim, official_ddim_inversion
from model.schedule import NoiseSchedule
from tests.model.official_reference import (
    OfficialModel,
    official_config,
    random_official,
    write_official,
)

TOLERANCE = 1e-4

Expected = dict[str, np.ndarray]


def assert_agrees(found: Any, expected: Any) -> None:
    """Within 1e-4 of the largest value, everywhere."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.fixture(scope="module")
def directory() -> Path:
    found = Path(__file__).parents[3] / "shared" / "reference" / "official-fmnist"
    if not found.is_dir():
        pytest.skip(f"{found} is missing: it holds an official checkpoint and the numbers it must give")
    return found


@pytest.fixture(scope="module")
def official(directory: Path) -> OfficialCheckpoint:
    return read_official(directory)


@pytest.fixture(scope="module")
def expected(directory: Path) -> Expected:
    with np.load(directory / "expected.npz") as arrays:
        return {name: arrays[name] for name in arrays}


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array)


# The official checkpoint and its numbers.


@torch.no_grad()
def test_the_encoder_gives_the_official_numbers(official: OfficialCheckpoint, expected: Expected) -> None:
    encoder = official.patronus.encoder
    features = encoder.features(tensor(expected["x0"]))
    distances = encoder.distances(features)
    activations, _ = encoder(tensor(expected["x0"]))
    assert_agrees(features, expected["features"])
    assert_agrees(distances, expected["distances"])
    assert_agrees(activations, expected["activations"])
    np.testing.assert_array_equal(distances.flatten(2).argmin(dim=2), expected["argmin"])


def test_the_receptive_field_is_the_official_one(official: OfficialCheckpoint, expected: Expected) -> None:
    field = official.patronus.config.receptive_field
    center = field.offset + field.size / 2
    assert [field.grid_size(32), field.jump, field.size, center] == expected["rf"].tolist()


@torch.no_grad()
def test_the_denoiser_gives_the_official_numbers(official: OfficialCheckpoint, expected: Expected) -> None:
    arguments = (tensor(expected[name]) for name in ("x_t", "timesteps", "activations"))
    assert_agrees(official.patronus(*arguments), expected["eps_pred"])


def test_the_schedule_is_the_official_one(official: OfficialCheckpoint, expected: Expected) -> None:
    schedule = NoiseSchedule.from_config(official.patronus.config.schedule)
    np.testing.assert_allclose(schedule.betas, expected["betas"], rtol=TOLERANCE)
    np.testing.assert_allclose(schedule.alphas_cumprod, expected["alphas_cumprod"], rtol=TOLERANCE)


@torch.no_grad()
def test_a_thousand_steps_down_and_up_end_at_the_official_images(
    official: OfficialCheckpoint, expected: Expected
) -> None:
    schedule = NoiseSchedule.from_config(official.patronus.config.schedule)
    down, up = ddim(schedule, 1000), official_ddim_inversion(schedule)
    assert down.timesteps.tolist() == list(range(999, -1, -1))
    assert up.timesteps.tolist() == list(range(1000))
    step = DenoiseStep(official.patronus)
    x = tensor(np.concatenate([expected["ddim_x_T"], expected["x0"][:2]]))  # two rows down, two up
    s = tensor(np.concatenate([expected["activations"][:2]] * 2))
    zero = torch.zeros_like(x)
    for i in range(1000):
        told = torch.tensor([down.timesteps[i]] * 2 + [up.timesteps[i]] * 2)
        coefficients = np.stack([down.coefficients[i]] * 2 + [up.coefficients[i]] * 2).astype(np.float32)
        x, _, _ = step(x, told, s, zero, zero, tensor(coefficients))
    assert_agrees(x[:2], expected["ddim_x0"])
    assert_agrees(x[2:], expected["inverted_x_T"])


def test_official_inversion_climbs_from_the_level_that_the_network_is_told() -> None:
    schedule = NoiseSchedule.from_config(ScheduleConfig(num_timesteps=30))
    table = official_ddim_inversion(schedule)
    levels = [*schedule.alphas_cumprod.tolist(), 0.0]
    x = plain = 0.7
    for i, (t, row) in enumerate(zip(table.timesteps, table.coefficients, strict=True)):
        assert t == i
        eps = 0.3 + 0.1 * plain  # any network
        x_0_hat = (plain - np.sqrt(1 - levels[i]) * eps) / np.sqrt(levels[i])
        plain = np.sqrt(levels[i + 1]) * x_0_hat + np.sqrt(1 - levels[i + 1]) * eps
        alpha, sigma, _, a, b, *_ = row
        eps = 0.3 + 0.1 * x
        x = a * x + b * (x - sigma * eps) / alpha
        assert x == pytest.approx(plain, rel=1e-9)
    assert x == pytest.approx(eps)


def test_provenance_names_the_experiment_and_the_file(official: OfficialCheckpoint) -> None:
    assert official.names == {
        "exp_type": "patronus",
        "ds_name": "FMNIST_clean",
        "DATASET": "FMNIST_clean-train",
        "split": "train",
    }
    assert len(official.sha256) == 64


@torch.no_grad()
def test_the_reference_of_these_tests_gives_the_official_numbers(directory: Path, expected: Expected) -> None:
    config = official_config(multipliers=(1, 2, 4, 4), num_prototypes=30)
    reference = OfficialModel(config).eval()
    state = torch.load(directory / "ckpt.tar", weights_only=True)["model"]
    reference.load_state_dict(state)  # strict: every name and shape is theirs
    assert list(reference.state_dict()) != []
    table = OfficialModel(config).state_dict()["time_embeddings.time_blocks.0.weight"]
    torch.testing.assert_close(table, state["time_embeddings.time_blocks.0.weight"], rtol=0, atol=1e-5)
    x_0 = tensor(expected["x0"])
    assert_agrees(reference.proactBlock.features(x_0), expected["features"])
    assert_agrees(reference.proactBlock.distances(x_0), expected["distances"])
    assert_agrees(reference.proactBlock.activations(x_0), expected["activations"])
    arguments = (tensor(expected[name]) for name in ("x_t", "timesteps", "activations"))
    assert_agrees(reference.eps(*arguments), expected["eps_pred"])


# Other configurations.


@pytest.mark.parametrize(
    ("options", "num_residual_blocks"),
    [
        ({"image": (1, 32, 32), "base": 8, "multipliers": (1, 2)}, 2),
        (
            {
                "image": (3, 64, 64),
                "base": 16,
                "multipliers": (1, 2, 4, 4),
                "attention": (False, True, False, True),
                "num_prototypes": 100,
            },
            2,
        ),
        ({"image": (1, 224, 224), "base": 8, "multipliers": (1, 2, 4, 4), "five_layers": True}, 2),
        ({"image": (3, 32, 48), "base": 24, "multipliers": (1, 3), "time_multiplier": 2}, 1),
        ({"image": (3, 32, 32), "multipliers": (2,), "attention": (True,), "timesteps": 250}, 3),
    ],
    ids=["gray 32", "colour 64", "five layers 224", "time multiplier 2", "one level, T 250"],
)
@torch.no_grad()
def test_every_legal_configuration_computes_what_the_reference_does(
    options: dict[str, Any], num_residual_blocks: int, tmp_path: Path
) -> None:
    config = official_config(**options)
    reference = random_official(config, num_residual_blocks=num_residual_blocks)
    write_official(tmp_path, config, {"model": reference.state_dict(), "opt": {}, "scaler": {}})
    patronus = read_official(tmp_path).patronus
    assert patronus.config.image.shape == config["TrainingConfig"]["IMG_SHAPE"]
    assert not patronus.training
    x_0 = torch.rand(2, *patronus.config.image.shape) * 2 - 1
    activations, maps = patronus.encoder(x_0)
    distances = reference.proactBlock.distances(x_0)
    assert_agrees(patronus.encoder.features(x_0), reference.proactBlock.features(x_0))
    assert_agrees(patronus.encoder.distances(patronus.encoder.features(x_0)), distances)
    assert_agrees(activations, reference.proactBlock.activations(x_0))
    assert maps.shape == distances.shape
    last = patronus.config.schedule.num_timesteps - 1
    x_t, timesteps = torch.randn_like(x_0), torch.tensor([3, last])
    assert_agrees(patronus(x_t, timesteps, activations), reference.eps(x_t, timesteps, activations))


# What may vary around a checkpoint, and what may not.


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return official_config()


@pytest.fixture(scope="module")
def state(config: dict[str, Any]) -> dict[str, Tensor]:
    return dict(random_official(config).state_dict())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrapped_models_are_removed(
    config: dict[str, Any], state: dict[str, Tensor], tmp_path: Path, prefix: str
) -> None:
    wrapped = OrderedDict((prefix + name, value) for name, value in state.items())
    patronus = read_official(write_official(tmp_path, config, {"model": wrapped})).patronus
    assert torch.equal(patronus.denoiser.first.weight, state["first.weight"])


def test_half_precision_becomes_float32(
    config: dict[str, Any], state: dict[str, Tensor], tmp_path: Path
) -> None:
    halved = {name: value if "time_blocks.0" in name else value.half() for name, value in state.items()}
    patronus = read_official(write_official(tmp_path, config, {"model": halved})).patronus
    assert patronus.denoiser.first.weight.dtype == torch.float32


@pytest.mark.parametrize("shape", [(3, 16, 24), [3, 16, 24], (16, 24, 3)])
def test_channels_may_come_first_or_last(tmp_path: Path, shape: Any) -> None:
    config = official_config(image=(3, 16, 24))
    state = random_official(config).state_dict()
    config["TrainingConfig"]["IMG_SHAPE"] = shape
    patronus = read_official(write_official(tmp_path, config, {"model": state})).patronus
    assert patronus.config.image == ImageConfig(3, 16, 24)


@pytest.mark.parametrize("protocol", range(6))
def test_every_pickle_protocol_is_read_with_plain_containers(
    config: dict[str, Any], state: dict[str, Tensor], tmp_path: Path, protocol: int
) -> None:
    write_official(tmp_path, config, {"model": state})
    more = {**config, "BaseConfig": {"a": {1, 2}, "b": [frozenset({3})], "c": (None, 1.5, b"x", 1j)}}
    more["BaseConfig"].pop("c" if protocol < 3 else "a")  # bytes and complex are named there
    more["BaseConfig"]["DEVICE"] = torch.device("cuda", 1)
    more["BaseConfig"] = OrderedDict(more["BaseConfig"])
    (tmp_path / "config.pickle").write_bytes(pickle.dumps(more, protocol))
    if protocol >= 3:
        with pytest.raises(OfficialCheckpointError, match=r"names builtins\.complex"):
            read_official(tmp_path)
        more["BaseConfig"]["c"] = (None, 1.5, b"x")
        (tmp_path / "config.pickle").write_bytes(pickle.dumps(more, protocol))
    assert read_official(tmp_path).names == {}


class Call:
    """Pickles as a call of something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self._reduced


def hostile(marker: Path) -> dict[str, Any]:
    return {
        "a call": Call(exec, f"open({str(marker)!r}, 'w')"),
        "an opened file": Call(open, str(marker), "w"),
        "a method of torch.device": Call(getattr, torch.device, "__class__"),
        "torch.load": Call(torch.load, str(marker)),
        "a class": Path,
        "an array": np.zeros(3),
    }


@pytest.mark.parametrize("kind", sorted(hostile(Path())))
def test_a_configuration_that_names_anything_else_is_refused(
    config: dict[str, Any], state: dict[str, Tensor], tmp_path: Path, kind: str
) -> None:
    marker = tmp_path / "marker"
    write_official(tmp_path, {**config, "extra": hostile(marker)[kind]}, {"model": state})
    with pytest.raises(OfficialCheckpointError, match=r"config\.pickle is refused: it names .*plain"):
        read_official(tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x8c\x05torch\x8c\x12device.__class__.mro\x93.",
        b"ctorch\ndevice\n}S'x'\nI1\nsb.",  # BUILD: sets an attribute of torch.device
        b"P1\n.",
        b"\x80\x04\x82\x01.",
        b"r\xff\xff\xff\x7f.",
        b"",
        b"not a pickle",
    ],
)
def test_a_crafted_or_damaged_configuration_is_refused(
    config: dict[str, Any], state: dict[str, Tensor], tmp_path: Path, content: bytes
) -> None:
    write_official(tmp_path, config, {"model": state})
    (tmp_path / "config.pickle").write_bytes(content)
    with pytest.raises(OfficialCheckpointError, match=r"config\.pickle is refused"):
        read_official(tmp_path)
    assert not hasattr(torch.device, "x")


def test_a_checkpoint_that_would_run_something_is_refused(
    config: dict[str, Any], state: dict[str, Tensor], tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    write_official(tmp_path, config, {"model": state, "opt": hostile(marker)["a call"]})
    with pytest.raises(OfficialCheckpointError, match=r"ckpt\.tar is refused"):
        read_official(tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["ckpt.tar", "config.pickle"])
def test_a_missing_file_is_named(
    config: dict[str, Any], state: dict[str, Tensor], tmp_path: Path, name: str
) -> None:
    write_official(tmp_path, config, {"model": state})
    (tmp_path / name).unlink()
    with pytest.raises(OfficialCheckpointError, match=f"{name} cannot be read: No such file"):
        read_official(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_refused(
    config: dict[str, Any], state: dict[str, Tensor], tmp_path: Path, content: bytes
) -> None:
    write_official(tmp_path, config, {"model": state})
    (tmp_path / "ckpt.tar").write_bytes(content)
    with pytest.raises(OfficialCheckpointError, match=r"ckpt\.tar is refused"):
        read_official(tmp_path)


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("ModelConfig", "BASE_CH", "8", "ModelConfig BASE_CH must be an integer, 0 to 10000, not '8'"),
        ("ModelConfig", "BASE_CH", 10**30, "ModelConfig BASE_CH must be an integer, 0 to 10000, not 1000000"),
        ("ModelConfig", "BASE_CH", True, "ModelConfig BASE_CH must be an integer"),
        ("ModelConfig", "BASE_CH", 12, "width 12 is not a multiple of norm_groups = 8"),
        ("ModelConfig", "BASE_CH_MULT", 2, "ModelConfig BASE_CH_MULT must be a list of integers"),
        ("ModelConfig", "APPLY_ATTENTION", (False, "no"), "APPLY_ATTENTION must be a list of booleans"),
        ("ModelConfig", "APPLY_ATTENTION", (False,), "attention_levels has 1 entries for 2 levels"),
        ("ModelConfig", "DROPOUT_RATE", None, "DROPOUT_RATE must be a number, not None"),
        ("TrainingConfig", "IMG_SHAPE", (32, 32), "IMG_SHAPE must be 3 integers"),
        ("TrainingConfig", "IMG_SHAPE", (2, 32, 32), "image channels must be 1 or 3, not 2"),
        ("TrainingConfig", "IMG_SHAPE", (1, 33, 32), "image height 33 is not a multiple"),
        ("TrainingConfig", "TIMESTEPS", 3, "num_timesteps must be 21 to 100000"),
        ("TrainingConfig", "P_VECTOR_SHAPE", (1, 64), "P_VECTOR_SHAPE must be ones and the last layer's"),
        ("TrainingConfig", "plb_layer_strides", (2, 1), "encoder strides has 2 entries for 4 layers"),
        ("TrainingConfig", "plb_channel_inputs", (), "at least one layer"),
    ],
)
def test_a_value_that_no_network_of_ours_has_is_named(
    config: dict[str, Any],
    state: dict[str, Tensor],
    tmp_path: Path,
    section: str,
    field: str,
    value: Any,
    message: str,
) -> None:
    changed = copy.deepcopy(config)
    changed[section][field] = value
    write_official(tmp_path, changed, {"model": state})
    with pytest.raises(OfficialCheckpointError, match=f"describes no model of ours: .*{message}"):
        read_official(tmp_path)


def test_every_missing_field_is_named(
    config: dict[str, Any], state: dict[str, Tensor], tmp_path: Path
) -> None:
    write_official(tmp_path, config, {"model": state})
    for section in ("ModelConfig", "TrainingConfig"):
        for field in config[section]:
            if field == "LR":
                continue  # theirs for training; nothing of ours depends on it
            changed = copy.deepcopy(config)
            changed[section].pop(field)
            (tmp_path / "config.pickle").write_bytes(pickle.dumps(changed))
            with pytest.raises(OfficialCheckpointError, match=f"{section} has no {field}"):
                read_official(tmp_path)
        without = {name: value for name, value in config.items() if name != section}
        (tmp_path / "config.pickle").write_bytes(pickle.dumps(without))
        with pytest.raises(OfficialCheckpointError, match=f"{section} is missing"):
            read_official(tmp_path)
    (tmp_path / "config.pickle").write_bytes(pickle.dumps([config]))
    with pytest.raises(OfficialCheckpointError, match="must hold a dict, not list"):
        read_official(tmp_path)


Change = Callable[[dict[str, Any]], object]

DENSE = "encoder_blocks.0.dense_1.weight"
TABLE = "time_embeddings.time_blocks.0.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(DENSE), f"lacks {DENSE}"),
        (lambda s: s.pop(TABLE), f"lacks {TABLE}"),
        (lambda s: s.update({"extra.weight": torch.ones(1)}), "does not describe: extra.weight"),
        (lambda s: s.update({DENSE: torch.ones(8, 33)}), rf"{DENSE} has shape \(8, 33\), .* says \(8, 32\)"),
        (lambda s: s.update({"first.bias": torch.ones(8).int()}), "'first.bias' is not a tensor of floating"),
        (lambda s: s.update({"first.bias": "none"}), "'first.bias' is not a tensor of floating"),
        (lambda s: s.update({"first.bias": torch.full((8,), torch.nan)}), "first.bias has values that are"),
        (lambda s: s.update({TABLE: s[TABLE][:500]}), rf"{TABLE} has shape \(500, 8\)"),
        (lambda s: s.update({TABLE: s[TABLE].flip(1)}), f"{TABLE} is not the sinusoid of this model"),
        (lambda s: s.update({"proactBlock.ones": torch.zeros(1)}), "ones must be all 1"),
        (lambda s: [s.pop(n) for n in list(s) if "encoder_blocks.0" in n], "lacks encoder_blocks.0.conv_1"),
        (
            lambda s: [s.pop(n) for n in list(s) if "bottleneck_blocks.0.attention" in n],
            "has attention in no block; .* our network has it in bottleneck_blocks.0",
        ),
        (
            lambda s: s.update({"bottleneck_blocks.1.attention.mhsa.in_proj_bias": torch.ones(48)}),
            "has attention in bottleneck_blocks.0, bottleneck_blocks.1; .* has it in bottleneck_blocks.0",
        ),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused_by_name(
    config: dict[str, Any], state: dict[str, Tensor], tmp_path: Path, change: Change, message: str
) -> None:
    changed = dict(state)
    change(changed)
    write_official(tmp_path, config, {"model": changed})
    with pytest.raises(OfficialCheckpointError, match=message):
        read_official(tmp_path)


def test_flags_that_contradict_the_weights_are_refused(
    config: dict[str, Any], state: dict[str, Tensor], tmp_path: Path
) -> None:
    changed = copy.deepcopy(config)
    changed["ModelConfig"]["APPLY_ATTENTION"] = (False, True)
    write_official(tmp_path, changed, {"model": state})
    with pytest.raises(OfficialCheckpointError, match=r"network has it in .*decoder_blocks\.0"):
        read_official(tmp_path)


@pytest.mark.parametrize("checkpoint", [[], {}, {"model": []}, {"weights": {}}])
def test_a_file_without_a_state_dict_is_refused(
    config: dict[str, Any], tmp_path: Path, checkpoint: Any
) -> None:
    write_official(tmp_path, config, checkpoint)
    with pytest.raises(OfficialCheckpointError, match="must hold a dict with the state dict 'model'"):
        read_official(tmp_path)


def test_a_constant_of_the_encoder_may_be_left_out(
    config: dict[str, Any], state: dict[str, Tensor], tmp_path: Path
) -> None:
    without = {name: value for name, value in state.items() if name != "proactBlock.ones"}
    assert read_official(write_official(tmp_path, config, {"model": without})).patronus is not None


@pytest.mark.parametrize(
    "values",
    [
        torch.zeros(1).expand(10**15),
        torch.zeros(4, device="meta"),
        torch.zeros(4).to_sparse(),
    ],
    ids=["a petabyte", "no values", "sparse"],
)
def test_a_tensor_that_is_not_what_it_says_is_refused(
    config: dict[str, Any], state: dict[str, Tensor], tmp_path: Path, values: Tensor
) -> None:
    write_official(tmp_path, config, {"model": {**state, "first.bias": values}})
    with pytest.raises(OfficialCheckpointError, match=r"ckpt\.tar: first\.bias (is no plain tensor|says)"):
        read_official(tmp_path)


def test_half_a_character_in_a_name_does_not_reach_the_manifest(
    config: dict[str, Any], state: dict[str, Tensor], tmp_path: Path
) -> None:
    named = {**config, "BaseConfig": {"ds_name": "celeb\ud800a"}}
    write_official(tmp_path, named, {"model": state})
    assert read_official(tmp_path).names == {"ds_name": "celeb?a"}
