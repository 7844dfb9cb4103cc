"""The convolutional encoder and decoder of VQGAN (Esser et al. 2021, arXiv:2012.09841), which Stable Diffusion kept.

A U-shaped stack without skips: levels of residual blocks, each level at half the resolution of the one before,
attention at chosen levels and in the middle. Shapes are (B, C, H, W) everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.nn.attention import Attention

EPS = 1e-6


class ResidualBlock(nn.Module):
    """Twice norm, swish and convolution, added to what came in (through a 1x1 map where the channels change)."""

    def __init__(self, inputs: int, outputs: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=EPS)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=EPS)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(inner)))


class SpatialAttention(nn.Module):
    """Norm, then attention between all positions of the map, added to what came in, (B, C, H, W) → (B, C, H, W)."""

    def __init__(self, channels: int, groups: int, *, heads: int, eps: float):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=eps)
        self.attention = Attention(channels, heads, bias=True, causal=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.attention(self.norm(x).flatten(2).transpose(1, 2))  # (B, C, H, W) → (B, H·W, C)
        return x + tokens.transpose(1, 2).view_as(x)


class Downsample(nn.Conv2d):
    """Half the height and width by a convolution of stride 2, padded below and on the right only."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Conv2d):
    """Twice the height and width: every pixel doubled, then a convolution."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks at one resolution, attention after each where wanted, then the way to the next resolution."""

    def __init__(self, inputs: int, outputs: int, *, blocks: int, attention: bool, groups: int, resample: nn.Module):
        super().__init__()
        widths = [inputs] + [outputs] * blocks
        self.blocks = nn.ModuleList(ResidualBlock(a, b, groups) for a, b in pairwise(widths))
        self.attentions = nn.ModuleList(
            SpatialAttention(outputs, groups, heads=1, eps=EPS) for _ in range(blocks if attention else 0)
        )
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        for n, block in enumerate(self.blocks):
            x = block(x)
            if self.attentions:
                x = self.attentions[n](x)
        return self.resample(x)


def _middle(channels: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(channels, channels, groups),
        SpatialAttention(channels, groups, heads=1, eps=EPS),
        ResidualBlock(channels, channels, groups),
    )


class Encoder(nn.Module):
    """Pictures (B, in_channels, H, W) to maps (B, out_channels, H / f, W / f), f = 2 ** (levels - 1).

    `widths` are the channels of the levels, the first at full resolution; `attention` says for each whether it has any.
    Norms have `groups` groups, a level has `blocks` residual blocks, and `stem` is the width that pictures enter with.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stem: int,
        widths: Sequence[int],
        attention: Sequence[bool],
        blocks: int,
        groups: int,
    ):
        super().__init__()
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(in_channels, stem, 3, padding=1)
        self.levels = nn.Sequential(
            *(
                Level(
                    before,
                    width,
                    blocks=blocks,
                    attention=attention[n],
                    groups=groups,
                    resample=Downsample(width) if n < last else nn.Identity(),
                )
                for n, (before, width) in enumerate(pairwise([stem, *widths]))
            )
        )
        self.middle = _middle(widths[-1], groups)
        self.norm_out = nn.GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.levels(self.conv_in(x)))
        return self.conv_out(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    """Maps (B, in_channels, h, w) to pictures (B, out_channels, h · f, w · f): the encoder in reverse.

    `widths` and `attention` are those of the encoder, full resolution first; `levels` of this module are in the order
    of the computation, lowest resolution first. A level has one block more than the encoder's.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        widths: Sequence[int],
        attention: Sequence[bool],
        blocks: int,
        groups: int,
    ):
        super().__init__()
        upwards, attended = list(reversed(widths)), list(reversed(attention))
        last = len(upwards) - 1
        self.conv_in = nn.Conv2d(in_channels, upwards[0], 3, padding=1)
        self.middle = _middle(upwards[0], groups)
        self.levels = nn.Sequential(
            *(
                Level(
                    before,
                    width,
                    blocks=blocks + 1,
                    attention=attended[n],
                    groups=groups,
                    resample=Upsample(width) if n < last else nn.Identity(),
                )
                for n, (before, width) in enumerate(pairwise([upwards[0], *upwards]))
            )
        )
        self.norm_out = nn.GroupNorm(groups, upwards[-1], eps=EPS)
        self.conv_out = nn.Conv2d(upwards[-1], out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.levels(self.middle(self.conv_in(x)))
        return self.conv_out(F.silu(self.norm_out(x)))
