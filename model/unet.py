"""The conditional U-Net that denoises an image given prototype activations."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import DenoiserConfig


class UNet(nn.Module):
    """U-Net over (x_t, timesteps, condition); the "paper" preset is Weng et al. 2026, appendix.

    Every entry of the encoder, downsamplings included, pushes a skip connection; every decoder
    residual block pops one.
    """

    def __init__(self, config: DenoiserConfig, image_channels: int, condition_width: int) -> None:
        super().__init__()
        self.config = config
        base = config.base_channels
        embedding_width = base * config.embedding_multiplier
        patch_channels = image_channels * config.patch_size**2

        self.time_embedding = TimeEmbedding(base, embedding_width)
        self.condition_embedding = nn.Sequential(
            nn.Linear(condition_width, embedding_width),
            nn.SiLU(),
            nn.Linear(embedding_width, embedding_width),
        )
        self.first = nn.Conv2d(patch_channels, base, 3, padding=1)

        def block(width_in: int, width_out: int, attention: bool) -> ResidualBlock:
            return ResidualBlock(config, width_in, width_out, embedding_width, attention)

        self.encoder_blocks = nn.ModuleList()
        skip_widths = [base]
        width = base
        last = len(config.channel_multipliers) - 1
        for level, multiplier in enumerate(config.channel_multipliers):
            for _ in range(config.num_residual_blocks):
                attention = config.attention_levels[level]
                self.encoder_blocks.append(block(width, base * multiplier, attention))
                width = base * multiplier
                skip_widths.append(width)
            if level != last:
                self.encoder_blocks.append(Downsample(width))
                skip_widths.append(width)

        self.bottleneck_blocks = nn.ModuleList([block(width, width, True), block(width, width, False)])

        self.decoder_blocks = nn.ModuleList()
        for level in range(last, -1, -1):
            for _ in range(config.num_residual_blocks + 1):
                width_out = base * config.channel_multipliers[level]
                attention = config.attention_levels[level]
                self.decoder_blocks.append(block(width + skip_widths.pop(), width_out, attention))
                width = width_out
            if level != 0:
                self.decoder_blocks.append(Upsample(width))

        self.final = nn.Sequential(
            nn.GroupNorm(config.norm_groups, width),
            nn.SiLU(),
            nn.Conv2d(width, patch_channels, 3, padding=1),
        )
        if config.zero_init:
            _zero(self.final[2])

    def forward(self, x_t: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        """x_t (B, C, H, W), timesteps (B,) int64, condition (B, m) -> prediction (B, C, H, W)."""
        time = self.time_embedding(timesteps)  # (B, E)
        condition = self.condition_embedding(condition)  # (B, E)
        h = F.pixel_unshuffle(x_t, self.config.patch_size) if self.config.patch_size > 1 else x_t
        h = self.first(h)  # (B, base, H / patch, W / patch)
        skips = [h]
        for module in self.encoder_blocks:
            h = module(h, time, condition)
            skips.append(h)
        for module in self.bottleneck_blocks:
            h = module(h, time, condition)
        for module in self.decoder_blocks:
            if isinstance(module, ResidualBlock):
                h = torch.cat([h, skips.pop()], dim=1)
            h = module(h, time, condition)
        h = self.final(h)
        return F.pixel_shuffle(h, self.config.patch_size) if self.config.patch_size > 1 else h


class TimeEmbedding(nn.Module):
    """Sinusoid (sines, then cosines, frequencies 10000^(-i / (half - 1))) and two linear layers."""

    frequencies: Tensor

    def __init__(self, base: int, width: int) -> None:
        super().__init__()
        half = base // 2
        exponents = torch.arange(half, dtype=torch.float64) / (half - 1)
        frequencies = torch.exp(-math.log(10_000.0) * exponents).float()
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(nn.Linear(base, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, timesteps: Tensor) -> Tensor:
        embedded: Tensor = self.layers(self.sinusoid(timesteps))
        return embedded  # (B, width)

    def sinusoid(self, timesteps: Tensor) -> Tensor:
        """timesteps (B,) -> (B, base), before the layers."""
        angles = timesteps.float()[:, None] * self.frequencies[None, :]  # (B, base / 2)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class ResidualBlock(nn.Module):
    """Two normalised convolutions with time and condition between them, and a shortcut."""

    def __init__(
        self,
        config: DenoiserConfig,
        width_in: int,
        width_out: int,
        embedding_width: int,
        attention: bool,
    ) -> None:
        super().__init__()
        self.scale_shift = config.conditioning == "scale_shift"
        self.norm_1 = nn.GroupNorm(config.norm_groups, width_in)
        self.conv_1 = nn.Conv2d(width_in, width_out, 3, padding=1)
        if self.scale_shift:
            self.modulation = nn.Linear(embedding_width, 2 * width_out)
        else:
            self.time_shift = nn.Linear(embedding_width, width_out)
            self.condition_shift = nn.Linear(embedding_width, width_out)
        self.norm_2 = nn.GroupNorm(config.norm_groups, width_out)
        self.dropout = nn.Dropout2d(config.dropout)
        self.conv_2 = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.shortcut = nn.Conv2d(width_in, width_out, 1) if width_in != width_out else nn.Identity()
        self.attention = SelfAttention(config, width_out) if attention else nn.Identity()
        if config.zero_init:
            _zero(self.conv_2)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        h = self.conv_1(F.silu(self.norm_1(x)))
        if self.scale_shift:
            modulation = self.modulation(F.silu(time + condition))[:, :, None, None]
            scale, shift = modulation.chunk(2, dim=1)  # (B, width_out, 1, 1) each
            h = self.norm_2(h) * (1.0 + scale) + shift
        else:
            h = h + self.time_shift(F.silu(time))[:, :, None, None]
            h = h + self.condition_shift(F.silu(condition))[:, :, None, None]
            h = self.norm_2(h)
        h = self.conv_2(self.dropout(F.silu(h)))
        attended: Tensor = self.attention(h + self.shortcut(x))
        return attended


class SelfAttention(nn.Module):
    """Multi-head self-attention over all positions, with its own normalisation and residual."""

    def __init__(self, config: DenoiserConfig, width: int) -> None:
        super().__init__()
        self.heads = config.attention_heads
        self.norm = nn.GroupNorm(config.norm_groups, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        if config.zero_init:
            _zero(self.out)

    def forward(self, x: Tensor) -> Tensor:
        batch, width, height, columns = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, HW, width)
        qkv = self.qkv(tokens).reshape(batch, height * columns, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, HW, width / heads) each
        attended = F.scaled_dot_product_attention(q, k, v)
        attended = attended.transpose(1, 2).reshape(batch, height * columns, width)
        residual: Tensor = self.out(attended).transpose(1, 2).reshape(batch, width, height, columns)
        return x + residual


class Downsample(nn.Module):
    """Strided convolution: half the height and width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        del time, condition  # one signature for all entries of the flat lists
        halved: Tensor = self.conv(x)
        return halved


class Upsample(nn.Module):
    """Nearest-neighbour upsampling, then a convolution: twice the height and width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        del time, condition
        doubled: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return doubled


def _zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
