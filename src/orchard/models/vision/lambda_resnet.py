"""LambdaResNet: residual networks with lambda layers (Bello 2021, arXiv:2102.08602).

In the bottlenecks of a ResNet a lambda layer stands in the place of the 3x3 convolution, in all stages or in some: near
the pictures a convolution costs less, so that hybrids have convolutions there and lambdas behind (section 4).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from orchard.models import Landmark, Rule, picture_size
from orchard.models.vision.residual import (
    Activation,
    ResidualConfig,
    ResidualNetwork,
    deep_stem,
    plain_stem,
    projection,
)
from orchard.models.vision.resnet import DEPTHS
from orchard.nn.checks import check_images
from orchard.nn.conv import conv
from orchard.nn.lambda_layer import GlobalPositions, LambdaLayer, LocalPositions

ACTIVATIONS: dict[str, Activation] = {"relu": nn.ReLU, "silu": nn.SiLU}


@dataclass(frozen=True)
class LambdaResNetConfig(ResidualConfig):
    patterns: tuple[str, ...] = ("L", "L", "L", "L")  # of the blocks in each stage, repeated: C convolution, L lambda
    context: str = "local"  # what a lambda sees: "local", `scope` pixels a side, or "global", all of an `image_size`
    scope: int = 23  # side of a local context, odd
    keys: int = 16  # channels of keys and queries
    heads: int = 4  # queries for each position
    intra_depth: int = 1  # keys and values for each position
    position_bias: bool = False  # whether local positions have a bias
    pool: str = "3x3"  # average pool behind a lambda layer that halves the map: "3x3" or "2x2"
    activation: str = "relu"  # "relu" or "silu"
    stems: ClassVar[tuple[str, ...]] = ("7x7", "3x3", "tiered")  # "tiered": three 3x3 convolutions, wider and wider

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("context", "local", "global")
        self.check("pool", "3x3", "2x2")
        self.check("activation", *ACTIVATIONS)
        if len(self.patterns) != len(self.depths) or not all(re.fullmatch("[CL]+", one) for one in self.patterns):
            raise ValueError(f"patterns has letters C and L for each of {len(self.depths)} stages, got {self.patterns}")
        if self.scope < 1 or self.scope % 2 == 0:
            raise ValueError(f"scope is odd, got {self.scope}")
        if any(width % self.heads for width in self.widths):
            raise ValueError(f"heads divides all widths {self.widths}, got {self.heads}")
        if self.dilated_stages:
            raise ValueError(f"dilated_stages is 0, as lambda layers are not dilated, got {self.dilated_stages}")


class LambdaBottleneck(nn.Module):
    """1x1 down, what mixes positions, 1x1 up, (B, inputs, H, W) → (B, outputs, H / stride, W / stride).

    `mixer` and `pool` together take (B, width, H, W) to (B, width, H / stride, W / stride).
    """

    def __init__(
        self, inputs: int, width: int, outputs: int, mixer: nn.Module, pool: nn.Module, shortcut: nn.Module,
        activation: nn.Module,
    ):  # fmt: skip
        super().__init__()
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.mixer = mixer
        self.pool = pool
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = shortcut
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.bn1(self.conv1(x)))
        out = self.activation(self.bn2(self.pool(self.mixer(out))))
        out = self.bn3(self.conv3(out))
        out += self.shortcut(x)
        result: Tensor = self.activation(out)
        return result


class LambdaResNet(ResidualNetwork):
    """Global contexts take pictures of `image_size` only, local ones of any size."""

    def __init__(self, config: LambdaResNetConfig):
        c, activation = config, ACTIVATIONS[config.activation]
        tiers = (3 * c.stem_width // 8, c.stem_width // 2, c.stem_width)
        stem, pool = deep_stem(c.in_channels, tiers, activation) if c.stem == "tiered" else plain_stem(c)
        super().__init__(c, stem, pool, partial(make_block, c, blocks_of(c)), activation)
        self.only_size = picture_size(c) if c.context == "global" else None
        for module in self.modules():
            if isinstance(module, LambdaLayer | LocalPositions | GlobalPositions):
                module.initialise()

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The map that leaves each stage, finest first, each (B, channels, H / stride, W / stride)."""
        check_images(images, self.config.in_channels, self.only_size)
        return super().feature_maps(images)


Block = tuple[
    str, str, tuple[int, int]
]  # its place (stage.index), its letter, and the size of the map that it is given


def blocks_of(c: LambdaResNetConfig) -> Iterator[Block]:
    """All blocks in their order."""
    height, width = picture_size(c)
    reduction = 1 if c.stem == "3x3" else 4
    for stage, (depth, pattern) in enumerate(zip(c.depths, c.patterns, strict=True)):
        for i in range(depth):
            yield f"{stage}.{i}", pattern[i % len(pattern)], (-(-height // reduction), -(-width // reduction))
            if stage > 0 and i == 0:
                reduction *= 2


def make_block(
    c: LambdaResNetConfig, blocks: Iterator[Block], inputs: int, width: int, stride: int, dilation: int
) -> nn.Module:
    _, letter, size = next(blocks)
    pool: nn.Module = nn.Identity()
    if letter == "C":
        mixer: nn.Module = conv(width, width, 3, stride=stride)
    else:
        if c.context == "global":
            positions: nn.Module = GlobalPositions(size, keys=c.keys, depth=c.intra_depth)
        else:
            positions = LocalPositions(c.scope, keys=c.keys, depth=c.intra_depth, bias=c.position_bias)
        mixer = LambdaLayer(width, width, positions, keys=c.keys, heads=c.heads, depth=c.intra_depth)
        if stride > 1:
            # The last window reaches over an odd edge, so that the map fits the shortcut's.
            pool = nn.AvgPool2d(3, stride, padding=1) if c.pool == "3x3" else nn.AvgPool2d(2, stride, ceil_mode=True)
    outputs, activation = c.expansion * width, ACTIVATIONS[c.activation](inplace=True)
    return LambdaBottleneck(inputs, width, outputs, mixer, pool, projection(inputs, outputs, stride), activation)


def timm_hybrid(
    depths: tuple[int, ...], *patterns: str, context: str = "local", activation: str = "relu"
) -> LambdaResNetConfig:
    return LambdaResNetConfig(
        depths, stem="tiered", patterns=patterns, context=context, scope=9, position_bias=context == "local",
        pool="2x2", activation=activation, image_size=256,
    )  # fmt: skip


DEEPER = {200: (3, 24, 36, 3), 270: (4, 29, 53, 4), 350: (4, 36, 72, 4), 420: (4, 44, 87, 4)}

VARIANTS = {
    **{f"lambda_resnet{n}": LambdaResNetConfig(depths) for n, depths in {**DEPTHS, **DEEPER}.items() if n >= 50},
    "lambda_resnet26t": timm_hybrid((2, 2, 2, 2), "C", "C", "CL", "L"),
    "lambda_resnet26rpt_256": timm_hybrid((2, 2, 2, 2), "C", "C", "CL", "L", context="global"),
    "lambda_resnet50ts": timm_hybrid((3, 4, 6, 3), "C", "CCCL", "CL", "CL", activation="silu"),
    "lambda_resnet_nano": LambdaResNetConfig(
        (1, 1, 1), (8, 16, 32), "3x3", 16, patterns=("C", "L", "L"), scope=7, keys=8, image_size=32, in_channels=1,
        num_classes=10,
    ),
}  # fmt: skip


def timm_names(config: LambdaResNetConfig) -> list[Rule | tuple[str, str]]:
    """timm's networks have the tiered stem and an intra-depth of one."""
    if config.stem != "tiered" or config.intra_depth != 1:
        return []
    rows: list[Rule | tuple[str, str]] = []
    stem = {"0": "conv1.conv", "1": "conv1.bn", "3": "conv2.conv", "4": "conv2.bn", "6": "conv3.conv"}
    rows += [(f"conv1.{ours}.{{}}", f"stem.{theirs}.{{}}") for ours, theirs in stem.items()]
    rows += [("bn1.{}", "stem.conv3.bn.{}"), ("head.{}", "head.fc.{}")]
    norms = {"C": "conv2_kxk.bn", "L": "post_attn"}
    rows += [
        (f"layers.{place}.bn2.{{}}", f"stages.{place}.{norms[letter]}.{{}}") for place, letter, _ in blocks_of(config)
    ]
    block, theirs = "layers.{}.{}.", "stages.{}.{}."
    for name in ("1", "3"):
        rows.append((f"{block}conv{name}.{{}}", f"{theirs}conv{name}_1x1.conv.{{}}"))
        rows.append((f"{block}bn{name}.{{}}", f"{theirs}conv{name}_1x1.bn.{{}}"))
    rows += [
        (f"{block}shortcut.0.{{}}", f"{theirs}shortcut.conv.{{}}"),
        (f"{block}shortcut.1.{{}}", f"{theirs}shortcut.bn.{{}}"),
        (f"{block}mixer.weight", f"{theirs}conv2_kxk.conv.weight"),
        (f"{block}mixer.to_qkv.{{}}", f"{theirs}self_attn.qkv.{{}}"),
        Rule(  # a convolution in three dimensions there, one step deep
            f"{block}mixer.positions.conv.weight", (f"{theirs}self_attn.conv_lambda.weight",),
            lambda kernels: kernels.squeeze(-1), lambda kernels: (kernels.unsqueeze(-1),),
        ),
        (f"{block}mixer.positions.conv.bias", f"{theirs}self_attn.conv_lambda.bias"),
        Rule(
            f"{block}mixer.positions.table", (f"{theirs}self_attn.pos_emb",),
            lambda table: table.unsqueeze(-1), lambda table: (table.squeeze(-1),),
        ),
        (f"{block}mixer.{{}}", f"{theirs}self_attn.{{}}"),
    ]  # fmt: skip
    return rows


LANDMARK = Landmark(model=LambdaResNet, variants=VARIANTS, names={"timm": timm_names})
