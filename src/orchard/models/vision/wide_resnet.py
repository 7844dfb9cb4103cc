"""Wide residual networks (Zagoruyko and Komodakis 2016, arXiv:1605.07146).

Fewer and wider layers reach what very deep and thin ones do, in a fraction of the time. `WideResNet` is the network for
CIFAR, whose blocks have norm and ReLU in front of each convolution and dropout between the two (figure 1d).
`WideBottleneck` is the one for ImageNet: a ResNet whose bottlenecks are wider inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.vision.pooled import PooledClassifier
from orchard.models.vision.residual import ResidualConfig, ResidualNetwork, plain_stem, projection
from orchard.models.vision.resnet import DEPTHS, Bottleneck, torchvision_names
from orchard.models.vision.resnetv2 import PreActBasic
from orchard.nn.checks import check_images
from orchard.nn.conv import conv, initialise_convolutions


@dataclass(frozen=True)
class WideResNetConfig:
    depth: int  # convolutions, those of shortcuts counted as the paper does: 6 n + 4
    widening: int  # how many times wider than a ResNet of section 4.2
    dropout: float = 0.0  # between the convolutions of a block (section 2.4)
    widths: tuple[int, ...] = (16, 32, 64)  # of the stages, before widening
    image_size: int = 32
    in_channels: int = 3
    num_classes: int = 10

    def __post_init__(self) -> None:
        if self.depth < 10 or (self.depth - 4) % 6:
            raise ValueError(f"depth is 6 n + 4 for n blocks a stage (10, 16, 22, ...), got {self.depth}")


class WideResNet(PooledClassifier):
    """Pictures (B, C, H, W) of any size, normalised, to logits (B, num_classes) (table 1)."""

    def __init__(self, config: WideResNetConfig):
        super().__init__()
        self.config = c = config
        self.blocks_a_stage = (c.depth - 4) // 6
        self.channels = tuple(c.widening * width for width in c.widths)
        self.strides = tuple(1 << stage for stage in range(len(c.widths)))
        inputs = c.widths[0]
        self.stem = conv(c.in_channels, inputs, 3)
        self.layers = nn.ModuleList()
        for stage, width in enumerate(self.channels):
            blocks = []
            for i in range(self.blocks_a_stage):
                blocks.append(PreActBasic(inputs, width, stride=2 if stage and not i else 1, dropout=c.dropout))
                inputs = width
            self.layers.append(nn.Sequential(*blocks))
        self.norm = nn.BatchNorm2d(inputs)
        self.head = nn.Linear(inputs, c.num_classes)
        initialise_convolutions(self)
        nn.init.zeros_(self.head.bias)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The map that leaves each stage, finest first, each (B, channels, H / stride, W / stride).

        The last one has the final norm and ReLU behind it; the others are sums, as the next block takes them.
        """
        check_images(images, self.config.in_channels)
        x = self.stem(images)
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        maps[-1] = F.relu(self.norm(x), inplace=True)
        return maps

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        blocks = [(f"layers.{s}.{i}.",) for s in range(len(self.layers)) for i in range(self.blocks_a_stage)]
        return [("stem.",), *blocks, ("norm.",), ("head.",)]


@dataclass(frozen=True)
class WideBottleneckConfig(ResidualConfig):
    widening: int = 2  # of the channels inside the bottlenecks; those between the blocks stay


class WideBottleneck(ResidualNetwork):
    """ResNet with wider bottlenecks (section 3.1, ImageNet)."""

    def __init__(self, config: WideBottleneckConfig):
        super().__init__(config, *plain_stem(config), partial(make_bottleneck, config))


def make_bottleneck(c: WideBottleneckConfig, inputs: int, width: int, stride: int, dilation: int) -> nn.Module:
    inner, outputs = c.widening * width, c.expansion * width
    return Bottleneck(inputs, (inner, inner), outputs, stride, projection(inputs, outputs, stride), dilation=dilation)


VARIANTS = {
    "wrn_16_8": WideResNetConfig(16, 8),
    "wrn_22_8": WideResNetConfig(22, 8),
    "wrn_28_10": WideResNetConfig(28, 10),
    "wrn_40_4": WideResNetConfig(40, 4),
    "wide_resnet50_2": WideBottleneckConfig(DEPTHS[50]),
    "wide_resnet101_2": WideBottleneckConfig(DEPTHS[101]),
    "wrn_nano": WideResNetConfig(10, 2, dropout=0.1, widths=(8, 16, 32), in_channels=1),
}


def package_names(config: Any) -> list[tuple[str, str]]:
    """torchvision and timm have the networks for ImageNet, under the names of their ResNets."""
    return torchvision_names(config) if isinstance(config, WideBottleneckConfig) else []


def build(config: Any) -> nn.Module:
    return WideBottleneck(config) if isinstance(config, WideBottleneckConfig) else WideResNet(config)


LANDMARK = Landmark(model=build, variants=VARIANTS, names={"torchvision": package_names, "timm": package_names})
