"""Checkpoints of the paper's authors, read into our network.

One directory: `ckpt.tar`, a torch file with the state dict `model`, and `config.pickle`, a dict of the
dicts ModelConfig and TrainingConfig. Both are data from strangers: nothing in them is executed.
"""

from __future__ import annotations

import hashlib
import math
import pickle
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from model.config import (
    ConfigError,
    DenoiserConfig,
    EncoderConfig,
    ImageConfig,
    ModelConfig,
    ScheduleConfig,
)
from model.patronus import Patronus
from model.unet import TimeEmbedding

CHECKPOINT = "ckpt.tar"
CONFIG = "config.pickle"

TIME_TABLE = "time_embeddings.time_blocks.0.weight"
ONES = "proactBlock.ones"
PROTOTYPES = "proactBlock.prototype_vectors"
CONSTANTS = (TIME_TABLE, ONES)
"""Entries that our network computes instead of storing; they are checked, not copied."""

LARGEST_SIZE = 10_000
"""No width, count or image side of a real network is larger."""

BASE_NAMES = ("exp_type", "ds_name", "DATASET", "split")
"""The texts of BaseConfig that say what the model is; the others are directories of the authors' machine."""

TABLE_TOLERANCE = 1e-3
"""Rounding of float32 angles stays far below it, another frequency or order far above."""

ADMITTED = {
    ("torch", "device"): torch.device,
    ("collections", "OrderedDict"): dict,  # not itself: a pickle could put attributes on it
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("__builtin__", "set"): set,  # as protocols 0 to 2 name it
    ("__builtin__", "frozenset"): frozenset,
}
"""All that a configuration may name; dicts, lists, tuples and scalars have no names in a pickle."""

OFFICIAL_NAMES = (
    (r"^encoder\.prototypes$", PROTOTYPES),
    (r"^encoder\.features\.", "proactBlock.encoder.features."),
    (r"^denoiser\.time_embedding\.layers\.0\.", "time_embeddings.time_blocks.1."),
    (r"^denoiser\.time_embedding\.layers\.2\.", "time_embeddings.time_blocks.3."),
    (r"^denoiser\.condition_embedding\.", "cond_embeddings.vector_fc."),
    (r"^denoiser\.", ""),
    (r"\.norm_([12])\.", r".normlize_\1."),
    (r"\.time_shift\.", ".dense_1."),
    (r"\.condition_shift\.", ".dense_2."),
    (r"\.shortcut\.", ".match_input."),
    (r"\.attention\.norm\.", ".attention.group_norm."),
    (r"\.attention\.qkv\.", ".attention.mhsa.in_proj_"),
    (r"\.attention\.out\.", ".attention.mhsa.out_proj."),
    (r"^(encoder_blocks\.\d+)\.conv\.", r"\1.downsample."),
    (r"^(decoder_blocks\.\d+)\.conv\.", r"\1.upsample.1."),
)
"""From our parameter names to theirs, applied in order."""

WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""


class OfficialCheckpointError(Exception):
    """A directory holds no official checkpoint that we can represent; the message says why."""


@dataclass(frozen=True)
class OfficialCheckpoint:
    """The model (float32, on the CPU, in evaluation mode) and where it came from.

    `names` are those of BASE_NAMES that the authors' BaseConfig holds; `sha256` is of ckpt.tar.
    """

    patronus: Patronus
    names: Mapping[str, str]
    sha256: str


def read_official(directory: Path) -> OfficialCheckpoint:
    """Read `ckpt.tar` and `config.pickle`. Raises OfficialCheckpointError."""
    values = read_official_config(directory / CONFIG)
    path = directory / CHECKPOINT
    state = _read_state(path)
    try:
        config = _model_config(values, state, path)
    except ConfigError as error:
        raise OfficialCheckpointError(f"{directory / CONFIG} describes no model of ours: {error}") from error
    _check_attention(config, state, path)
    _check_entries(_official_shapes(config), state, path)
    _check_constants(config, state, path)
    patronus = Patronus(config).eval()
    with torch.no_grad():
        for name, parameter in patronus.named_parameters():
            parameter.copy_(state[_official_name(name)].view_as(parameter))
    return OfficialCheckpoint(patronus, _names(values), _sha256(path))


def read_official_config(path: Path) -> dict[str, Any]:
    """The dict in a `config.pickle`. Raises OfficialCheckpointError if it names anything not in ADMITTED."""
    try:
        with path.open("rb") as file:
            values = _PlainUnpickler(file).load()
    except OSError as error:
        raise OfficialCheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # what a damaged or hostile pickle raises is anybody's choice
        raise OfficialCheckpointError(f"{path} is refused: {error}") from error
    if not isinstance(values, dict):
        raise OfficialCheckpointError(f"{path} must hold a dict, not {type(values).__name__}")
    return values


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names {module[:100]}.{name[:100]}, and a configuration may hold nothing but "
                "plain containers, scalars and torch.device"
            ) from None


def _read_state(path: Path) -> dict[str, Tensor]:
    """The state dict `model`, wrappers' prefixes removed, in float32."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise OfficialCheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # torch raises whatever its reader of zip files and pickles met
        reason = str(error).partition("\n")[0]
        raise OfficialCheckpointError(f"{path} is refused: {reason}") from error
    state = checkpoint.get("model") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise OfficialCheckpointError(f"{path} must hold a dict with the state dict 'model'")
    for prefix in WRAPPERS * 2:
        if state and all(isinstance(name, str) and name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or not value.is_floating_point():
            raise OfficialCheckpointError(f"{path}: {reprlib.repr(name)} is not a tensor of floating point")
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_nested:
            raise OfficialCheckpointError(f"{path}: {name} is no plain tensor with values")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise OfficialCheckpointError(
                f"{path}: {name} says that it is {tuple(value.shape)}, the file holds fewer values"
            )
        if not bool(torch.isfinite(value).all()):
            raise OfficialCheckpointError(f"{path}: {name} has values that are not finite")
    return {name: value.detach().float() for name, value in state.items()}


def _model_config(values: dict[str, Any], state: Mapping[str, Tensor], path: Path) -> ModelConfig:
    """Our configuration of the network that theirs describes. Raises ConfigError."""
    model, training = _Section(values, "ModelConfig"), _Section(values, "TrainingConfig")
    image = _image_config(training.integers("IMG_SHAPE", count=3))
    m, vector_shape = training.integer("NUM_PROTOS"), training.integers("P_VECTOR_SHAPE")
    channels = training.integers("plb_channel_inputs")[1:]  # the first is the image's, whatever it says
    if channels and not math.prod(vector_shape) == max(vector_shape, default=0) == channels[-1]:
        raise ConfigError(
            f"P_VECTOR_SHAPE must be ones and the last layer's width, {channels[-1]}, not {vector_shape}"
        )
    return ModelConfig(
        image=image,
        encoder=EncoderConfig(
            num_prototypes=m,
            kernel_sizes=training.integers("plb_layer_filter_sizes"),
            channels=channels,
            strides=training.integers("plb_layer_strides"),
            paddings=training.integers("plb_layer_paddings"),
            distance="sum",
        ),
        denoiser=DenoiserConfig(
            base_channels=model.integer("BASE_CH"),
            channel_multipliers=model.integers("BASE_CH_MULT"),
            num_residual_blocks=_num_residual_blocks(state, path),
            attention_levels=model.flags("APPLY_ATTENTION"),
            dropout=model.number("DROPOUT_RATE"),
            embedding_multiplier=model.integer("TIME_EMB_MULT"),
        ),
        schedule=ScheduleConfig(num_timesteps=training.integer("TIMESTEPS", largest=100_000)),
    )


class _Section:
    """One of the dicts in the configuration; every reader names the field when it is missing or mistyped."""

    def __init__(self, values: dict[str, Any], name: str) -> None:
        section = values.get(name)
        if not isinstance(section, dict):
            raise ConfigError(f"{name} is missing" if section is None else f"{name} must be a dict")
        self._values = section
        self._name = name

    def integer(self, field: str, largest: int = LARGEST_SIZE) -> int:
        value = self._value(field)
        if type(value) is not int or not 0 <= value <= largest:
            raise self._mistyped(field, f"an integer, 0 to {largest}")
        return value

    def number(self, field: str) -> float:
        value = self._value(field)
        if type(value) not in (int, float):
            raise self._mistyped(field, "a number")
        return float(value)

    def integers(self, field: str, count: int | None = None) -> tuple[int, ...]:
        value = self._value(field)
        if not isinstance(value, list | tuple) or any(
            type(item) is not int or not 0 <= item <= LARGEST_SIZE for item in value
        ):
            raise self._mistyped(field, f"a list of integers, 0 to {LARGEST_SIZE}")
        if count is not None and len(value) != count:
            raise self._mistyped(field, f"{count} integers")
        return tuple(value)

    def flags(self, field: str) -> tuple[bool, ...]:
        value = self._value(field)
        if not isinstance(value, list | tuple) or any(
            type(item) not in (bool, int) or item not in (0, 1) for item in value
        ):
            raise self._mistyped(field, "a list of booleans")
        return tuple(bool(item) for item in value)

    def _value(self, field: str) -> Any:
        if field not in self._values:
            raise ConfigError(f"{self._name} has no {field}")
        return self._values[field]

    def _mistyped(self, field: str, kind: str) -> ConfigError:
        return ConfigError(f"{self._name} {field} must be {kind}, not {reprlib.repr(self._values[field])}")


def _image_config(shape: tuple[int, ...]) -> ImageConfig:
    """(C, H, W), or (H, W, C) where the first cannot be a number of channels."""
    if shape[0] not in (1, 3) and shape[2] in (1, 3):
        height, width, channels = shape
        return ImageConfig(channels, height, width)
    return ImageConfig(*shape)


def _num_residual_blocks(state: Mapping[str, Tensor], path: Path) -> int:
    """Residual blocks before the first downsampling: the configuration does not say how many there are."""
    count = 0
    while f"encoder_blocks.{count}.conv_1.weight" in state:
        count += 1
    if count == 0:
        raise OfficialCheckpointError(f"{path} lacks encoder_blocks.0.conv_1.weight")
    return count


def _official_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every official entry that our network has a parameter for; no memory is taken."""
    with torch.device("meta"):
        parameters = dict(Patronus(config).named_parameters())
    shapes = {_official_name(name): tuple(parameter.shape) for name, parameter in parameters.items()}
    shapes[PROTOTYPES] = (*shapes[PROTOTYPES], 1, 1)
    return shapes


def _official_name(name: str) -> str:
    for pattern, replacement in OFFICIAL_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _check_attention(config: ModelConfig, state: Mapping[str, Tensor], path: Path) -> None:
    """Attention must be where the flags put it: every block of a level, and the first of the bottleneck."""
    levels, per_level = config.denoiser.attention_levels, config.denoiser.num_residual_blocks
    expected = {"bottleneck_blocks.0"}
    for level, attends in enumerate(levels):
        if attends:
            first = level * (per_level + 1)  # the blocks of a level and the downsampling after them
            expected |= {f"encoder_blocks.{first + i}" for i in range(per_level)}
            first = (len(levels) - 1 - level) * (per_level + 2)
            expected |= {f"decoder_blocks.{first + i}" for i in range(per_level + 1)}
    found = {name.partition(".attention.")[0] for name in state if ".attention." in name}
    if found != expected:
        raise OfficialCheckpointError(
            f"{path} has attention in {_listed(found)}; with APPLY_ATTENTION {levels} our network has it in "
            f"{_listed(expected)}"
        )


def _check_entries(expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], path: Path) -> None:
    """Every parameter is there in its shape, and nothing else is."""
    missing = [name for name in (*expected, TIME_TABLE) if name not in state]
    unknown = [name for name in state if name not in expected and name not in CONSTANTS]
    if missing or unknown:
        parts = [f"lacks {_listed(missing)}"] * bool(missing) + [
            f"has entries that this configuration does not describe: {_listed(unknown)}"
        ] * bool(unknown)
        raise OfficialCheckpointError(f"{path} {' and '.join(parts)}")
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            raise OfficialCheckpointError(
                f"{path}: {name} has shape {tuple(state[name].shape)}, the configuration says {shape}"
            )


def _check_constants(config: ModelConfig, state: Mapping[str, Tensor], path: Path) -> None:
    table, base = state[TIME_TABLE], config.denoiser.base_channels
    shape = (config.schedule.num_timesteps, base)
    if tuple(table.shape) != shape:
        raise OfficialCheckpointError(
            f"{path}: {TIME_TABLE} has shape {tuple(table.shape)}, the configuration says {shape}"
        )
    difference = (table - TimeEmbedding(base, 1).sinusoid(torch.arange(len(table)))).abs().max().item()
    if difference > TABLE_TOLERANCE:
        raise OfficialCheckpointError(
            f"{path}: {TIME_TABLE} is not the sinusoid of this model (sines, then cosines, frequencies "
            f"10000^(-i / (half - 1))): it differs by {difference:.2g}"
        )
    ones = state.get(ONES)
    if ones is not None and not bool((ones == 1.0).all()):
        raise OfficialCheckpointError(f"{path}: {ONES} must be all 1, or distances are not squared L2 ones")


def _names(values: dict[str, Any]) -> dict[str, str]:
    base = values.get("BaseConfig")
    if not isinstance(base, dict):
        return {}
    texts = {name: base[name] for name in BASE_NAMES if isinstance(base.get(name), str)}
    # A pickle may hold half of a surrogate pair, which no JSON file can.
    return {name: text[:200].encode("utf-8", "replace").decode() for name, text in texts.items()}


def _listed(names: Iterable[str], most: int = 8) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return (", ".join(ordered[:most]) + more) or "no block"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
