"""The authors' model written down once more, plainly and with their names, to compare ours with.

It shares no code with `model`. `test_official` holds it against the numbers of an official checkpoint.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

HEADS = 4
GROUPS = 8


def official_config(
    *,
    image: tuple[int, int, int] = (1, 32, 32),
    base: int = 8,
    multipliers: tuple[int, ...] = (1, 2),
    attention: tuple[bool, ...] | None = None,
    num_prototypes: int = 7,
    time_multiplier: int = 4,
    timesteps: int = 1000,
    five_layers: bool = False,
) -> dict[str, Any]:
    """What `config.pickle` holds."""
    channels = (32, 64, 64, 128, 128) if five_layers else (32, 64, 64, 128)
    return {
        "BaseConfig": {
            "DEVICE": torch.device("cpu"),
            "exp_type": "patronus",
            "ds_name": "stripes",
            "record_dir": "./records",
        },
        "ModelConfig": {
            "BASE_CH": base,
            "BASE_CH_MULT": multipliers,
            "APPLY_ATTENTION": attention or (False,) * len(multipliers),
            "DROPOUT_RATE": 0.1,
            "TIME_EMB_MULT": time_multiplier,
        },
        "TrainingConfig": {
            "TIMESTEPS": timesteps,
            "IMG_SHAPE": image,
            "NUM_PROTOS": num_prototypes,
            "P_VECTOR_SHAPE": (1, 128),
            "plb_channel_inputs": (3, *channels),  # the first entry is not the image's, and must not count
            "plb_layer_filter_sizes": (5,) * 5 if five_layers else (3,) * 4,
            "plb_layer_strides": (2, 2, 1, 1, 1) if five_layers else (2, 1, 1, 1),
            "plb_layer_paddings": (1, 1, 0, 0, 0) if five_layers else (1, 0, 0, 0),
            "LR": 1e-5,
        },
    }


def random_official(config: dict[str, Any], *, num_residual_blocks: int = 2, seed: int = 0) -> OfficialModel:
    """Random weights, normalisations and biases too."""
    torch.manual_seed(seed)
    model = OfficialModel(config, num_residual_blocks).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            if name == "proactBlock.prototype_vectors":
                parameter.copy_(0.3 * torch.rand_like(parameter))
    return model


def write_official(directory: Path, config: Any, checkpoint: Any) -> Path:
    """Both files, as the authors' code writes them."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.pickle").write_bytes(pickle.dumps(config))
    torch.save(checkpoint, directory / "ckpt.tar")
    return directory


class OfficialModel(nn.Module):
    """Encoder and denoiser in one module."""

    def __init__(self, config: dict[str, Any], num_residual_blocks: int = 2) -> None:
        super().__init__()
        model, training = config["ModelConfig"], config["TrainingConfig"]
        base, multipliers, attention = model["BASE_CH"], model["BASE_CH_MULT"], model["APPLY_ATTENTION"]
        width = base * model["TIME_EMB_MULT"]
        image_channels = training["IMG_SHAPE"][0]
        self.proactBlock = ProtoBlock(training)
        self.time_embeddings = TimeEmbeddings(training["TIMESTEPS"], base, width)
        self.cond_embeddings = CondEmbeddings(training["NUM_PROTOS"], width)
        self.first = nn.Conv2d(image_channels, base, 3, padding=1)

        encoder: list[nn.Module] = []
        pushed, current = [base], base
        for level, multiplier in enumerate(multipliers):
            for _ in range(num_residual_blocks):
                encoder.append(Block(current, base * multiplier, width, attention[level]))
                current = base * multiplier
                pushed.append(current)
            if level < len(multipliers) - 1:
                encoder.append(Down(current))
                pushed.append(current)
        self.encoder_blocks = nn.ModuleList(encoder)
        self.bottleneck_blocks = nn.ModuleList(
            [Block(current, current, width, True), Block(current, current, width, False)]
        )
        decoder: list[nn.Module] = []
        for level in reversed(range(len(multipliers))):
            for _ in range(num_residual_blocks + 1):
                decoder.append(
                    Block(current + pushed.pop(), base * multipliers[level], width, attention[level])
                )
                current = base * multipliers[level]
            if level > 0:
                decoder.append(Up(current))
        self.decoder_blocks = nn.ModuleList(decoder)
        self.final = nn.Sequential(
            nn.GroupNorm(GROUPS, current), nn.SiLU(), nn.Conv2d(current, image_channels, 3, padding=1)
        )

    def eps(self, x_t: Tensor, timesteps: Tensor, activations: Tensor) -> Tensor:
        time = self.time_embeddings.time_blocks(timesteps)
        condition = self.cond_embeddings.vector_fc(activations)
        h = self.first(x_t)
        stack = [h]
        for block in self.encoder_blocks:
            h = block(h, time, condition)
            stack.append(h)
        for block in self.bottleneck_blocks:
            h = block(h, time, condition)
        for block in self.decoder_blocks:
            if isinstance(block, Block):
                h = torch.cat([h, stack.pop()], dim=1)
            h = block(h, time, condition)
        predicted: Tensor = self.final(h)
        return predicted


class ProtoBlock(nn.Module):
    def __init__(self, training: dict[str, Any]) -> None:
        super().__init__()
        widths = (training["IMG_SHAPE"][0], *training["plb_channel_inputs"][1:])
        layers: list[nn.Module] = []
        for i, (kernel, stride, padding) in enumerate(
            zip(
                training["plb_layer_filter_sizes"],
                training["plb_layer_strides"],
                training["plb_layer_paddings"],
                strict=True,
            )
        ):
            layers += [nn.Conv2d(widths[i], widths[i + 1], kernel, stride, padding), nn.ReLU()]
        self.encoder = nn.Module()
        self.encoder.features = nn.Sequential(*layers)
        shape = (training["NUM_PROTOS"], training["P_VECTOR_SHAPE"][-1], 1, 1)
        self.prototype_vectors = nn.Parameter(torch.rand(shape))
        self.ones = nn.Parameter(torch.ones(shape), requires_grad=False)

    def features(self, x_0: Tensor) -> Tensor:
        computed: Tensor = self.encoder.features(x_0)  # type: ignore[operator]
        return computed

    def distances(self, x_0: Tensor) -> Tensor:
        difference = self.features(x_0)[:, None] - self.prototype_vectors[None]  # (B, m, D, h, w)
        return difference.square().sum(dim=2)

    def activations(self, x_0: Tensor) -> Tensor:
        smallest = self.distances(x_0).flatten(2).min(dim=2).values
        return torch.log((smallest + 1) / (smallest + 1e-4))


class TimeEmbeddings(nn.Module):
    def __init__(self, timesteps: int, base: int, width: int) -> None:
        super().__init__()
        half = base // 2
        frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half) / (half - 1))
        angles = torch.arange(timesteps)[:, None] * frequencies
        table = nn.Embedding(timesteps, base, _weight=torch.cat([angles.sin(), angles.cos()], dim=1))
        self.time_blocks = nn.Sequential(table, nn.Linear(base, width), nn.SiLU(), nn.Linear(width, width))


class CondEmbeddings(nn.Module):
    def __init__(self, num_prototypes: int, width: int) -> None:
        super().__init__()
        self.vector_fc = nn.Sequential(nn.Linear(num_prototypes, width), nn.SiLU(), nn.Linear(width, width))


class Block(nn.Module):
    def __init__(self, width_in: int, width_out: int, embedding: int, attends: bool) -> None:
        super().__init__()
        self.normlize_1 = nn.GroupNorm(GROUPS, width_in)
        self.conv_1 = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.dense_1 = nn.Linear(embedding, width_out)
        self.dense_2 = nn.Linear(embedding, width_out)
        self.normlize_2 = nn.GroupNorm(GROUPS, width_out)
        self.conv_2 = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.match_input = nn.Conv2d(width_in, width_out, 1) if width_in != width_out else nn.Identity()
        self.attention = Attention(width_out) if attends else nn.Identity()

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        silu = nn.functional.silu
        h = self.conv_1(silu(self.normlize_1(x)))
        h = h + self.dense_1(silu(time))[..., None, None] + self.dense_2(silu(condition))[..., None, None]
        h = self.conv_2(silu(self.normlize_2(h)))
        result: Tensor = self.attention(h + self.match_input(x))
        return result


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(GROUPS, width)
        self.mhsa = nn.MultiheadAttention(width, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)
        attended, _ = self.mhsa(tokens, tokens, tokens)
        result: Tensor = x + attended.transpose(1, 2).reshape(x.shape)
        return result


class Down(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.downsample = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        halved: Tensor = self.downsample(x)
        return halved


class Up(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.upsample = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        doubled: Tensor = self.upsample(x)
        return doubled
