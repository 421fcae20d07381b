"""The frozen description of one model: what a checkpoint and a bundle must agree on."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from model.receptive_field import ReceptiveField, receptive_field

Prediction = Literal["eps", "v"]
Distance = Literal["sum", "mean"]
Conditioning = Literal["add", "scale_shift"]
Scale = Literal["local", "wide", "global"]

T = TypeVar("T")

ADDED_LATER = {"written_at_default": False}
"""Metadata of a field that the format has gained: at its default it is not written, so that what was written
before the field existed is written in the same bytes today."""


class ConfigError(ValueError):
    """A configuration names a field or a value that no model can have."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True)
class ImageConfig:
    """Shape (C, H, W) of the images that the model reads and writes, in pixels."""

    channels: int = 1
    height: int = 32
    width: int = 32

    def __post_init__(self) -> None:
        _require(self.channels in (1, 3), f"image channels must be 1 or 3, not {self.channels}")
        for name in ("height", "width"):
            value = getattr(self, name)
            _require(8 <= value <= 1024, f"image {name} must be 8 to 1024 pixels, not {value}")

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.height, self.width)


@dataclass(frozen=True)
class EncoderConfig:
    """Prototype encoder: one convolution and ReLU per entry, then `num_prototypes` distances.

    `distance` is "sum" for the paper's squared L2 distance, "mean" for the same divided by the
    feature width, which keeps activations spread when features are wide.

    Of the `num_prototypes`, which come in the order local, wide, global, `num_wide_prototypes` look at wider
    patches (`wide_layers`) and `num_global_prototypes` at the whole image; the paper has local ones only.
    """

    num_prototypes: int = 30
    kernel_sizes: tuple[int, ...] = (3, 3, 3, 3)
    channels: tuple[int, ...] = (32, 64, 64, 128)
    strides: tuple[int, ...] = (2, 1, 1, 1)
    paddings: tuple[int, ...] = (1, 0, 0, 0)
    distance: Distance = "mean"
    num_wide_prototypes: int = field(default=0, metadata=ADDED_LATER)
    num_global_prototypes: int = field(default=0, metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        _require(self.num_prototypes >= 1, f"num_prototypes must be >= 1, not {self.num_prototypes}")
        for name in ("num_wide_prototypes", "num_global_prototypes"):
            _require(getattr(self, name) >= 0, f"{name} must be >= 0, not {getattr(self, name)}")
        others = self.num_wide_prototypes + self.num_global_prototypes
        _require(
            others < self.num_prototypes,
            f"{self.num_wide_prototypes} wide and {self.num_global_prototypes} global prototypes leave no "
            f"local one of {self.num_prototypes}",
        )
        layers = len(self.channels)
        _require(layers >= 1, "an encoder needs at least one layer")
        for name in ("kernel_sizes", "strides", "paddings"):
            values = getattr(self, name)
            _require(
                len(values) == layers,
                f"encoder {name} has {len(values)} entries for {layers} layers",
            )
        for name in ("channels", "kernel_sizes", "strides"):
            smallest = min(getattr(self, name))
            _require(smallest >= 1, f"encoder {name} must be >= 1, not {smallest}")
        for kernel, padding in zip(self.kernel_sizes, self.paddings, strict=True):
            _require(
                0 <= padding < kernel,
                f"encoder paddings must be 0 to {kernel - 1} for kernel size {kernel}, not {padding}",
            )
        _require(self.distance in ("sum", "mean"), f"distance must be sum or mean, not {self.distance}")

    @property
    def feature_width(self) -> int:
        """D, the width of a patch feature and of a prototype vector."""
        return self.channels[-1]

    @property
    def num_prototypes_by_scale(self) -> dict[Scale, int]:
        """How many prototypes each scale has, in their order; scales without one are left out."""
        counts: dict[Scale, int] = {
            "local": self.num_prototypes - self.num_wide_prototypes - self.num_global_prototypes,
            "wide": self.num_wide_prototypes,
            "global": self.num_global_prototypes,
        }
        return {scale: count for scale, count in counts.items() if count}

    @property
    def wide_layers(self) -> tuple[tuple[int, int, int], ...]:
        """(kernel, stride, padding) of the convolutions that make wide patch features of local ones.

        The first halves the grid, and as many follow as it takes until a cell sees at least twice as far as
        a local one (2.3 times in the presets' networks): two eyes with the nose between them, where a local
        one sees one eye. All are 3x3 and padded by one, so wide cell i is centred on local cell 2 i,
        whatever the image's size.
        """
        layers = [(3, 2, 1)]
        while self._receptive_field(layers).size < 2 * self._receptive_field(()).size:
            layers.append((3, 1, 1))
        return tuple(layers)

    def receptive_field(self, scale: Literal["local", "wide"] = "local") -> ReceptiveField:
        """Of a cell of the grid of patch features that a scale's prototypes are compared with."""
        return self._receptive_field(self.wide_layers if scale == "wide" else ())

    def _receptive_field(self, further: Sequence[tuple[int, int, int]]) -> ReceptiveField:
        layers = [*zip(self.kernel_sizes, self.strides, self.paddings, strict=True), *further]
        kernel_sizes, strides, paddings = zip(*layers, strict=True)
        return receptive_field(kernel_sizes, strides, paddings)


@dataclass(frozen=True)
class DenoiserConfig:
    """Conditional U-Net. The defaults are the paper's network.

    `patch_size` > 1 folds pixels into channels (pixel-unshuffle) before the first convolution.
    `conditioning` "add" adds both embeddings per channel, "scale_shift" modulates the second
    normalisation (adaptive group normalisation, Dhariwal and Nichol 2021). `standardize` feeds
    (s - running mean) / running std to the condition embedding.
    """

    base_channels: int = 64
    channel_multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_residual_blocks: int = 2
    attention_levels: tuple[bool, ...] = (False, False, False, False)
    attention_heads: int = 4
    norm_groups: int = 8
    dropout: float = 0.1
    embedding_multiplier: int = 4
    conditioning: Conditioning = "add"
    patch_size: int = 1
    standardize: bool = False
    zero_init: bool = False

    def __post_init__(self) -> None:
        levels = len(self.channel_multipliers)
        _require(levels >= 1, "a denoiser needs at least one level")
        _require(
            len(self.attention_levels) == levels,
            f"attention_levels has {len(self.attention_levels)} entries for {levels} levels",
        )
        for name in ("num_residual_blocks", "attention_heads", "norm_groups", "embedding_multiplier"):
            _require(getattr(self, name) >= 1, f"{name} must be >= 1, not {getattr(self, name)}")
        _require(self.base_channels >= 4, f"base_channels must be >= 4, not {self.base_channels}")
        _require(self.base_channels % 2 == 0, f"base_channels must be even, not {self.base_channels}")
        for multiplier in self.channel_multipliers:
            width = multiplier * self.base_channels
            _require(
                multiplier >= 1 and width % self.norm_groups == 0,
                f"width {width} is not a multiple of norm_groups = {self.norm_groups}",
            )
        bottleneck = self.channel_multipliers[-1] * self.base_channels
        _require(
            bottleneck % self.attention_heads == 0,
            f"bottleneck width {bottleneck} is not a multiple of attention_heads",
        )
        _require(0.0 <= self.dropout < 1.0, f"dropout must be in [0, 1), not {self.dropout}")
        _require(self.patch_size >= 1, f"patch_size must be >= 1, not {self.patch_size}")
        _require(
            self.conditioning in ("add", "scale_shift"),
            f"conditioning must be add or scale_shift, not {self.conditioning}",
        )


@dataclass(frozen=True)
class ScheduleConfig:
    """Linear β schedule over T = `num_timesteps` (Ho et al. 2020); ends scale with 1000 / T."""

    num_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def __post_init__(self) -> None:
        _require(
            21 <= self.num_timesteps <= 100_000,
            f"num_timesteps must be 21 to 100000, not {self.num_timesteps}",
        )
        _require(
            0.0 < self.beta_start <= self.beta_end < 1.0,
            f"need 0 < beta_start <= beta_end < 1, not {self.beta_start}, {self.beta_end}",
        )


@dataclass(frozen=True)
class PriorConfig:
    """Latent prior: a residual MLP that denoises the normal scores of `num_prototypes` activations.

    Its schedule is its own. `sampling_steps` of DPM-Solver++(2M) are what sampling takes.
    """

    num_prototypes: int = 30
    width: int = 256
    num_layers: int = 4
    dropout: float = 0.0
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    prediction: Prediction = "v"
    sampling_steps: int = 50

    def __post_init__(self) -> None:
        for name in ("num_prototypes", "width", "num_layers", "sampling_steps"):
            _require(getattr(self, name) >= 1, f"prior {name} must be >= 1, not {getattr(self, name)}")
        _require(0.0 <= self.dropout < 1.0, f"prior dropout must be in [0, 1), not {self.dropout}")
        _require(self.prediction in ("eps", "v"), f"prior prediction must be eps or v, not {self.prediction}")
        _require(
            self.sampling_steps <= self.schedule.num_timesteps,
            f"prior sampling_steps {self.sampling_steps} exceed the {self.schedule.num_timesteps} timesteps",
        )


@dataclass(frozen=True)
class ModelConfig:
    """Everything that determines the network's shapes and what its output means."""

    image: ImageConfig = field(default_factory=ImageConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    prediction: Prediction = "eps"

    def __post_init__(self) -> None:
        _require(self.prediction in ("eps", "v"), f"prediction must be eps or v, not {self.prediction}")
        downsampling = self.denoiser.patch_size * 2 ** (len(self.denoiser.channel_multipliers) - 1)
        for name in ("height", "width"):
            size = getattr(self.image, name)
            _require(
                size % downsampling == 0,
                f"image {name} {size} is not a multiple of the denoiser's downsampling {downsampling}",
            )
            _require(
                self.receptive_field.grid_size(size) >= 1,
                f"image {name} {size} leaves the encoder no grid cell",
            )

    @property
    def receptive_field(self) -> ReceptiveField:
        """Of a local prototype; `model.prototype_boxes` knows where the others look."""
        return self.encoder.receptive_field()

    @property
    def num_prototypes(self) -> int:
        return self.encoder.num_prototypes

    @property
    def grid_shape(self) -> tuple[int, int]:
        """(h, w) of the encoder's patch grid."""
        field_ = self.receptive_field
        return (field_.grid_size(self.image.height), field_.grid_size(self.image.width))


def paper_config(*, channels: int = 3, size: int = 64, num_prototypes: int = 100) -> ModelConfig:
    """The paper's network for 32 and 64 pixel images (Weng et al. 2026, section 4)."""
    return ModelConfig(
        image=ImageConfig(channels, size, size),
        encoder=EncoderConfig(num_prototypes=num_prototypes, distance="sum"),
    )


def small_config(*, channels: int = 1, size: int = 32, num_prototypes: int = 30) -> ModelConfig:
    """A network that two CPU cores can train in about an hour and serve in milliseconds."""
    return ModelConfig(
        image=ImageConfig(channels, size, size),
        encoder=EncoderConfig(num_prototypes=num_prototypes),
        denoiser=DenoiserConfig(
            base_channels=32,
            channel_multipliers=(1, 2, 2),
            attention_levels=(False, False, False),
            conditioning="scale_shift",
            patch_size=2,
            standardize=True,
            zero_init=True,
        ),
        prediction="v",
    )


def config_to_dict(config: Any, *, complete: bool = False) -> dict[str, Any]:
    """A frozen config as plain JSON values; `config_from_dict` is its inverse.

    Fields that the format has gained (`ADDED_LATER`) are left out at their default, unless `complete`.
    """
    return {
        item.name: _plain(getattr(config, item.name), complete)
        for item in dataclasses.fields(config)
        if complete
        or item.metadata.get("written_at_default", True)
        or getattr(config, item.name) != item.default
    }


def _plain(value: Any, complete: bool) -> Any:
    if dataclasses.is_dataclass(value):
        return config_to_dict(value, complete=complete)
    return [_plain(item, complete) for item in value] if isinstance(value, tuple) else value


def config_from_dict(cls: type[T], values: Any, *, where: str = "config") -> T:
    """Build the frozen dataclass `cls` from JSON values, refusing unknown, missing or mistyped fields."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be an object, not {type(values).__name__}")
    hints = typing.get_type_hints(cls)
    fields = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(f"{where} has unknown fields: {', '.join(unknown)}")
    built = {name: _typed(hints[name], value, f"{where}.{name}") for name, value in values.items()}
    try:
        return cls(**built)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _typed(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return config_from_dict(typing.cast(type[Any], hint), value, where=where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in arguments:
            return value
        raise ConfigError(f"{where} must be one of {arguments}, not {value!r}")
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} must be a list, not {value!r}")
        return tuple(_typed(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _typed(next(a for a in arguments if a is not type(None)), value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{where} must be {hint.__name__}, not {value!r}")
    return value
