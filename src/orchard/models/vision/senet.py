"""Squeeze-and-excitation networks: SE-ResNet, SE-ResNeXt and SENet-154 (Hu et al. 2017, arXiv:1709.01507).

What a block has learned passes a gate before it is added: every channel is weighed by what all of them hold on average
over the map (sections 3 and 3.3). `legacy_` variants are the authors' Caffe networks, the others are wired as ResNets
are today.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import nn

from orchard.models import Landmark
from orchard.models.vision.residual import ResidualConfig, ResidualNetwork, deep_stem, plain_stem, projection
from orchard.models.vision.resnet import DEPTHS, BasicBlock, Bottleneck, torchvision_names
from orchard.nn.squeeze_excite import SqueezeExcite


@dataclass(frozen=True)
class SENetConfig(ResidualConfig):
    bottleneck: bool = True
    cardinality: int = 1  # groups of the 3x3 convolution
    base_width: int = 64  # channels of each group where the stage is 64 wide; more in proportion
    halve_first: bool = False  # whether the first 1x1 convolution gives half of the channels inside (SENet-154)
    shortcut_kernel: int = 1  # of shortcuts with a stride
    stride_on: str = "3x3"  # which convolution halves the picture: "3x3", or the first "1x1" as in Caffe
    pool: str = "padded"  # the pool of the stem: with a border, or "ceil", windows that reach over the edge (Caffe)
    dropout: float = 0.0  # before the head
    stems: ClassVar[tuple[str, ...]] = (
        "7x7",
        "3x3",
        "deep",
    )  # "deep": three 3x3 convolutions in the place of one of 7x7

    @property
    def expansion(self) -> int:
        return 4 if self.bottleneck else 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("stride_on", "3x3", "1x1")
        self.check("pool", "padded", "ceil")
        if self.dilated_stages and not self.bottleneck:
            raise ValueError("dilated_stages needs bottleneck = true: basic blocks are not dilated")


class SENet(ResidualNetwork):
    def __init__(self, config: SENetConfig):
        c, half = config, config.stem_width // 2
        stem, pool = deep_stem(c.in_channels, (half, half, c.stem_width)) if c.stem == "deep" else plain_stem(c)
        if config.pool == "ceil":
            pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        super().__init__(config, stem, pool, partial(make_block, config))
        self.dropout = nn.Dropout(config.dropout)


def make_block(c: SENetConfig, inputs: int, width: int, stride: int, dilation: int) -> nn.Module:
    outputs = c.expansion * width
    # Reduction 16 (section 6.1); no gate has fewer than eight units, as in timm.
    gate = SqueezeExcite(outputs, max(8, outputs // 16), nn.ReLU(inplace=True), nn.Sigmoid())
    shortcut = projection(inputs, outputs, stride, kernel=1 if stride == 1 else c.shortcut_kernel)
    if not c.bottleneck:
        return BasicBlock(inputs, width, stride, shortcut, gate)
    inner = c.cardinality * (width * c.base_width // 64)
    first = inner // 2 if c.halve_first else inner
    return Bottleneck(
        inputs, (first, inner), outputs, stride, shortcut,
        stride_on=c.stride_on, dilation=dilation, groups=c.cardinality, gate=gate,
    )  # fmt: skip


def next_32x4d(depth: int, pool: str) -> SENetConfig:
    return SENetConfig(DEPTHS[depth], cardinality=32, base_width=4, pool=pool)


VARIANTS = {
    **{f"seresnet{depth}": SENetConfig(blocks, bottleneck=depth >= 50) for depth, blocks in DEPTHS.items()},
    **{f"seresnext{depth}_32x4d": next_32x4d(depth, "padded") for depth in (50, 101)},
    **{f"legacy_seresnet{depth}": SENetConfig(DEPTHS[depth], stride_on="1x1", pool="ceil") for depth in (50, 101, 152)},
    **{f"legacy_seresnext{depth}_32x4d": next_32x4d(depth, "ceil") for depth in (50, 101)},
    "legacy_senet154": SENetConfig(
        DEPTHS[152], stem="deep", stem_width=128, cardinality=64, base_width=4, halve_first=True, shortcut_kernel=3,
        pool="ceil", dropout=0.2,
    ),
    "seresnet_nano": SENetConfig(
        (1, 1, 1), (16, 32, 64), "3x3", 16, bottleneck=False, image_size=32, in_channels=1, num_classes=10
    ),
}  # fmt: skip


def cadene_names(config: SENetConfig) -> list[tuple[str, str]]:
    """The names of the weights that were converted from the authors' Caffe files; only `legacy_` variants suit them."""
    if config.pool != "ceil":
        return []
    rows = []
    if config.stem == "deep":
        places = {"conv1.0": "conv1", "conv1.1": "bn1", "conv1.3": "conv2", "conv1.4": "bn2", "conv1.6": "conv3"}
        rows = [(f"{ours}.{{}}", f"layer0.{theirs}.{{}}") for ours, theirs in places.items()]
    rows += [("conv1.{}", "layer0.conv1.{}"), ("bn1.{}", f"layer0.bn{3 if config.stem == 'deep' else 1}.{{}}")]
    for stage in range(len(config.depths)):
        rows.append((f"layers.{stage}.{{}}.gate.{{}}", f"layer{stage + 1}.{{}}.se_module.{{}}"))
        rows.append((f"layers.{stage}.{{}}.shortcut.{{}}", f"layer{stage + 1}.{{}}.downsample.{{}}"))
        rows.append((f"layers.{stage}.{{}}", f"layer{stage + 1}.{{}}"))
    return [*rows, ("head.{}", "last_linear.{}")]


def timm_names(config: SENetConfig) -> list[tuple[str, str]]:
    gates = [(f"layers.{s}.{{}}.gate.{{}}", f"layer{s + 1}.{{}}.se.{{}}") for s in range(len(config.depths))]
    return cadene_names(config) or [*gates, *torchvision_names(config)]


LANDMARK = Landmark(model=SENet, variants=VARIANTS, names={"timm": timm_names, "cadene": cadene_names})
