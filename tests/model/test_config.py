from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from model.config import (
    ConfigError,
    DenoiserConfig,
    EncoderConfig,
    ImageConfig,
    ModelConfig,
    ScheduleConfig,
    config_from_dict,
    config_to_dict,
    paper_config,
    small_config,
)


@pytest.mark.parametrize("config", [small_config(), paper_config(), paper_config(channels=1, size=32)])
def test_a_config_survives_json(config: ModelConfig) -> None:
    values = json.loads(json.dumps(config_to_dict(config)))
    assert config_from_dict(ModelConfig, values) == config


def test_fields_that_the_format_has_gained_are_written_only_where_they_say_something() -> None:
    encoder = EncoderConfig(num_wide_prototypes=2)
    written = config_to_dict(EncoderConfig())
    assert {"num_wide_prototypes", "num_global_prototypes"}.isdisjoint(written)
    assert config_to_dict(encoder) == {**written, "num_wide_prototypes": 2}
    assert config_from_dict(EncoderConfig, config_to_dict(encoder)) == encoder
    assert config_to_dict(ModelConfig(), complete=True)["encoder"]["num_wide_prototypes"] == 0


def test_fields_left_out_take_their_defaults() -> None:
    assert config_from_dict(ModelConfig, {"prediction": "v"}) == ModelConfig(prediction="v")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": 1}, "config has unknown fields: colour"),
        ({"encoder": {"layers": 3}}, "config.encoder has unknown fields: layers"),
        ({"image": 3}, "config.image must be an object, not int"),
        ({"image": {"channels": "1"}}, "config.image.channels must be int, not '1'"),
        ({"image": {"channels": True}}, "config.image.channels must be int, not True"),
        ({"image": {"height": 32.0}}, "config.image.height must be int, not 32.0"),
        ({"image": {"height": None}}, "config.image.height must be int, not None"),
        ({"encoder": {"channels": 32}}, "config.encoder.channels must be a list"),
        ({"encoder": {"channels": [32, "64"]}}, r"config.encoder.channels\[1\] must be int"),
        ({"denoiser": {"zero_init": 1}}, "config.denoiser.zero_init must be bool"),
        ({"denoiser": {"dropout": "0.1"}}, "config.denoiser.dropout must be float"),
        ({"prediction": "x0"}, "config.prediction must be one of"),
        ({"prediction": ["v"]}, "config.prediction must be one of"),
        ([], "config must be an object, not list"),
    ],
)
def test_unknown_and_mistyped_fields_are_refused_by_name(values: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_dict(ModelConfig, values)


def test_whole_numbers_are_welcome_where_floats_belong() -> None:
    assert config_from_dict(DenoiserConfig, {"dropout": 0}).dropout == 0.0


def test_a_missing_field_without_default_is_refused_by_name() -> None:
    @dataclasses.dataclass(frozen=True)
    class Named:
        name: str

    with pytest.raises(ConfigError, match=r"config: .*name"):
        config_from_dict(Named, {})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ImageConfig(channels=2), "channels must be 1 or 3, not 2"),
        (lambda: ImageConfig(height=4), "height must be 8 to 1024 pixels, not 4"),
        (lambda: EncoderConfig(num_prototypes=0), "num_prototypes must be >= 1, not 0"),
        (lambda: EncoderConfig(num_global_prototypes=-1), "num_global_prototypes must be >= 0, not -1"),
        (
            lambda: EncoderConfig(num_prototypes=5, num_wide_prototypes=2, num_global_prototypes=3),
            "2 wide and 3 global prototypes leave no local one of 5",
        ),
        (lambda: EncoderConfig(channels=()), "at least one layer"),
        (lambda: EncoderConfig(strides=(2, 1)), "strides has 2 entries for 4 layers"),
        (lambda: DenoiserConfig(base_channels=2), "base_channels must be >= 4, not 2"),
        (lambda: DenoiserConfig(base_channels=9), "base_channels must be even"),
        (lambda: DenoiserConfig(base_channels=12), "not a multiple of norm_groups"),
        (lambda: DenoiserConfig(attention_levels=(True,)), "attention_levels has 1 entries for 4"),
        (lambda: DenoiserConfig(attention_heads=3), "not a multiple of attention_heads"),
        (lambda: DenoiserConfig(dropout=1.0), r"dropout must be in \[0, 1\)"),
        (lambda: DenoiserConfig(patch_size=0), "patch_size must be >= 1"),
        (lambda: DenoiserConfig(norm_groups=0), "norm_groups"),
        (lambda: DenoiserConfig(attention_heads=0), "attention_heads"),
        (lambda: DenoiserConfig(num_residual_blocks=0), "num_residual_blocks"),
        (lambda: DenoiserConfig(embedding_multiplier=0), "embedding_multiplier"),
        (lambda: EncoderConfig(channels=(32, 64, 64, 0)), "channels"),
        (lambda: EncoderConfig(kernel_sizes=(3, 3, 3, 0)), "kernel_sizes"),
        (lambda: EncoderConfig(strides=(2, 1, 1, 0)), "strides"),
        (lambda: EncoderConfig(paddings=(1, 0, 0, -1)), "paddings"),
        (lambda: ScheduleConfig(num_timesteps=20), "num_timesteps must be 21"),
        (lambda: ScheduleConfig(beta_start=0.1, beta_end=0.01), "beta_start <= beta_end"),
        (lambda: ModelConfig(image=ImageConfig(1, 36, 36)), "not a multiple of .* downsampling 8"),
        (lambda: ModelConfig(image=ImageConfig(1, 8, 8)), "leaves the encoder no grid cell"),
    ],
)
def test_impossible_values_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()
