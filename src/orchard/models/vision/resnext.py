"""ResNeXt: aggregated residual transformations (Xie et al. 2016, arXiv:1611.05431).

Between depth and width stands a third number, the cardinality: a block adds up many small transformations of one shape.
They are computed as one grouped convolution (figure 3c), which is the same function.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import nn

from orchard.models import Landmark
from orchard.models.vision.residual import ResidualConfig, ResidualNetwork, plain_stem, projection
from orchard.models.vision.resnet import Bottleneck, torchvision_names


@dataclass(frozen=True)
class ResNeXtConfig(ResidualConfig):
    cardinality: int = 32  # transformations that a block adds up
    base_width: int = 4  # channels of each of them where the stage is 64 wide; more in proportion

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path_width(min(self.widths)) < 1:
            raise ValueError(f"base_width {self.base_width} leaves no channels at a width of {min(self.widths)}")

    def path_width(self, width: int) -> int:
        """Channels of each transformation in a stage of this width."""
        return width * self.base_width // 64


class ResNeXt(ResidualNetwork):
    def __init__(self, config: ResNeXtConfig):
        super().__init__(config, *plain_stem(config), partial(make_block, config))


def make_block(c: ResNeXtConfig, inputs: int, width: int, stride: int, dilation: int) -> nn.Module:
    """A bottleneck whose 3x3 convolution sees each group of channels by itself (table 1)."""
    inner, outputs = c.cardinality * c.path_width(width), c.expansion * width
    shortcut = projection(inputs, outputs, stride)
    return Bottleneck(inputs, (inner, inner), outputs, stride, shortcut, dilation=dilation, groups=c.cardinality)


def imagenet(depths: tuple[int, ...], cardinality: int, base_width: int) -> ResNeXtConfig:
    return ResNeXtConfig(depths, cardinality=cardinality, base_width=base_width)


def cifar(cardinality: int, base_width: int) -> ResNeXtConfig:
    """The network of 29 layers of section 5.3, for pictures of 32 pixels."""
    return ResNeXtConfig(
        (3, 3, 3), (64, 128, 256), "3x3", image_size=32, num_classes=10, cardinality=cardinality, base_width=base_width
    )


VARIANTS = {
    "resnext50_32x4d": imagenet((3, 4, 6, 3), 32, 4),
    "resnext101_32x4d": imagenet((3, 4, 23, 3), 32, 4),
    "resnext101_32x8d": imagenet((3, 4, 23, 3), 32, 8),
    "resnext101_64x4d": imagenet((3, 4, 23, 3), 64, 4),
    "resnext152_32x4d": imagenet((3, 8, 36, 3), 32, 4),
    "resnext29_8x64d": cifar(8, 64),
    "resnext29_16x64d": cifar(16, 64),
    "resnext_nano": ResNeXtConfig(
        (1, 1, 1), (8, 16, 32), "3x3", stem_width=16, image_size=32, in_channels=1, num_classes=10,
        cardinality=8, base_width=16,
    ),
}  # fmt: skip

LANDMARK = Landmark(
    model=ResNeXt, variants=VARIANTS, names={"torchvision": torchvision_names, "timm": torchvision_names}
)
