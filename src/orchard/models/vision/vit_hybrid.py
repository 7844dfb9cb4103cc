"""The hybrid ViT's stem: a ResNet with group norm and standardised kernels (Dosovitskiy et al. 2020, section 3.1).

In place of raw patches the transformer reads the feature map of this network, which is the first stages of
Big Transfer's ResNet (Kolesnikov et al. 2020, arXiv:1912.11370) with the norm after the convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from orchard.models import Rule
from orchard.nn.std_conv import SameMaxPool2d, StdConv2d

EXPANSION = 4  # a unit's output is four times as wide as its 3x3 convolution


class Unit(nn.Module):
    """A bottleneck: 1x1, 3x3 (with the stride), 1x1, each with group norm, and a shortcut around them."""

    def __init__(self, in_channels: int, width: int, stride: int):
        super().__init__()
        out_channels = EXPANSION * width
        self.conv1, self.norm1 = _conv(in_channels, width, 1), _norm(width)
        self.conv2, self.norm2 = _conv(width, width, 3, stride), _norm(width)
        self.conv3, self.norm3 = _conv(width, out_channels, 1), _norm(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(_conv(in_channels, out_channels, 1, stride), _norm(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(x)).relu()
        y = self.norm2(self.conv2(y)).relu()
        y = self.norm3(self.conv3(y)) + self.shortcut(x)
        return y.relu()


class HybridStem(nn.Module):
    """Pictures (B, C, H, W) to features (B, `out_channels`, H / s, W / s), s being `stem_stride(stages)`.

    `stages` counts the units of each stage; with none, only the root (7x7 convolution and pooling) is left.
    """

    def __init__(self, in_channels: int, width: int, stages: Sequence[int]):
        super().__init__()
        self.conv, self.norm = _conv(in_channels, width, 7, 2), _norm(width)
        self.pool = SameMaxPool2d(3, 2)
        channels = width
        self.stages = nn.Sequential()
        for i, units in enumerate(stages):
            stage = nn.Sequential()
            for j in range(units):
                stage.append(Unit(channels, width * 2**i, stride=2 if i > 0 and j == 0 else 1))
                channels = EXPANSION * width * 2**i
            self.stages.append(stage)
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(self.pool(self.norm(self.conv(x)).relu()))


def stem_stride(stages: Sequence[int]) -> int:
    """How many pixels a side one cell of the stem's output stands for: 4 after the root, doubled from stage 2 on."""
    return 4 << max(len(stages) - 1, 0)


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> StdConv2d:
    return StdConv2d(in_channels, out_channels, kernel, stride, eps=1e-5)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


def google_stem_names(stages: Sequence[int]) -> list[Rule | tuple[str, str]]:
    """The stem's names in Google's checkpoints. Old files keep norms as (1, 1, 1, C), new ones as (C)."""
    pairs = [("conv", "conv_root"), ("norm", "gn_root")]
    for i, units in enumerate(stages):
        for j in range(units):
            ours, theirs = f"stages.{i}.{j}", f"block{i + 1}/unit{j + 1}"
            pairs += [(f"{ours}.conv{n}", f"{theirs}/conv{n}") for n in (1, 2, 3)]
            pairs += [(f"{ours}.norm{n}", f"{theirs}/gn{n}") for n in (1, 2, 3)]
        pairs += [(f"stages.{i}.0.shortcut.0", f"block{i + 1}/unit1/conv_proj")]
        pairs += [(f"stages.{i}.0.shortcut.1", f"block{i + 1}/unit1/gn_proj")]
    rules: list[Rule | tuple[str, str]] = []
    for ours, theirs in pairs:
        if "conv" in theirs:
            rules.append(
                Rule(
                    f"stem.{ours}.weight",
                    (f"{theirs}/kernel",),
                    join=lambda kernel: kernel.permute(3, 2, 0, 1),  # (h, w, in, out) → (out, in, h, w)
                    split=lambda kernel: (kernel.permute(2, 3, 1, 0),),
                )
            )
        else:
            rules += [
                Rule(f"stem.{ours}.{mine}", (f"{theirs}/{yours}",), join=lambda tensor: tensor.flatten())
                for mine, yours in (("weight", "scale"), ("bias", "bias"))
            ]
    return rules


def timm_stem_names(stages: Sequence[int]) -> list[Rule | tuple[str, str]]:
    """The stem's names in timm, which keeps a root without stages in a module of another name."""
    if not stages:
        return [("stem.{}", "patch_embed.backbone.{}")]
    return [
        ("stem.stages.{}.{}.shortcut.0.{}", "patch_embed.backbone.stages.{}.blocks.{}.downsample.conv.{}"),
        ("stem.stages.{}.{}.shortcut.1.{}", "patch_embed.backbone.stages.{}.blocks.{}.downsample.norm.{}"),
        ("stem.stages.{}.{}.{}", "patch_embed.backbone.stages.{}.blocks.{}.{}"),
        ("stem.{}", "patch_embed.backbone.stem.{}"),
    ]
