"""SqueezeNet: AlexNet-level accuracy with 50x fewer parameters (Iandola et al. 2016, arXiv:1602.07360).

Table 1 of the paper: a convolution, eight fire modules with pools between them, and a 1x1 convolution that gives one
map for each class. `squeezenet1_1` is the authors' later version: a smaller first convolution and earlier pools.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.nn.checks import check_images


@dataclass(frozen=True)
class SqueezeNetConfig:
    stem: int = 96
    stem_kernel: int = 7
    squeezes: tuple[int, ...] = (16, 16, 32, 32, 48, 48, 64, 64)  # table 1, s1x1: what a fire module narrows to
    expands: tuple[int, ...] = (64, 64, 128, 128, 192, 192, 256, 256)  # e1x1 and e3x3: channels of each of its halves
    pools: tuple[int, ...] = (0, 3, 7)  # the fire modules with a pool before them, counted from 0
    dropout: float = 0.5
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000

    @property
    def least(self) -> int:
        """The smallest side of a picture that leaves something behind the last pool."""
        return int(2 * (2 ** len(self.pools) - 1) + self.stem_kernel)

    def __post_init__(self) -> None:
        if len(self.squeezes) != len(self.expands):
            raise ValueError("squeezes and expands name the same fire modules, one number each")
        if self.image_size < self.least:
            raise ValueError(f"image_size is at least {self.least}, got {self.image_size}")


class Fire(nn.Module):
    """1x1 down to few channels, then 1x1 and 3x3 side by side, (B, inputs, H, W) → (B, 2 expand, H, W) (figure 1)."""

    def __init__(self, inputs: int, squeeze: int, expand: int):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


class SqueezeNet(nn.Module):
    """Pictures (B, C, H, W) of at least 21 pixels (1.1: 17), normalised, to logits (B, num_classes)."""

    head_name = "head"
    classifier_layers = ("head",)

    def __init__(self, config: SqueezeNetConfig):
        super().__init__()
        self.config = c = config
        self.stem = nn.Conv2d(c.in_channels, c.stem, c.stem_kernel, stride=2)
        inputs = c.stem
        self.fires = nn.ModuleList()
        for squeeze, expand in zip(c.squeezes, c.expands, strict=True):
            self.fires.append(Fire(inputs, squeeze, expand))
            inputs = 2 * expand
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)  # Caffe's pools count what is left at the border
        self.strides = tuple(2 << n for n in range(len(c.pools) + 1))
        widths = (c.stem, *(2 * expand for expand in c.expands))
        self.channels = tuple(widths[pool] for pool in (*c.pools, len(c.expands)))
        self.dropout = nn.Dropout(c.dropout)
        self.head = nn.Conv2d(inputs, c.num_classes, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.head.weight, std=0.01)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """What stands before each pool and at the end, finest first, (B, channels, about H / stride, ...)."""
        check_images(images, self.config.in_channels, least=self.config.least)
        x = F.relu(self.stem(images))
        maps = []
        for index, fire in enumerate(self.fires):
            if index in self.config.pools:
                maps.append(x)
                x = self.pool(x)
            x = fire(x)
        return [*maps, x]

    def features(self, images: Tensor) -> Tensor:
        """What the last fire module leaves, (B, C, h, w)."""
        return self.feature_maps(images)[-1]

    def forward(self, images: Tensor) -> Tensor:
        maps = F.relu(self.head(self.dropout(self.features(images))))  # one for each class, which the paper rectifies
        return maps.mean((2, 3))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [("stem.",), *((f"fires.{i}.",) for i in range(len(self.fires))), ("head.",)]


VARIANTS = {
    "squeezenet1_0": SqueezeNetConfig(),
    "squeezenet1_1": SqueezeNetConfig(stem=64, stem_kernel=3, pools=(0, 2, 4)),
    "squeezenet_nano": SqueezeNetConfig(
        stem=32,
        stem_kernel=3,
        squeezes=(8, 8, 16, 16),
        expands=(32, 32, 64, 64),
        pools=(0, 2),
        dropout=0.2,
        image_size=32,
        in_channels=1,
        num_classes=10,
    ),
}


def torchvision_names(config: SqueezeNetConfig) -> list[tuple[str, str]]:
    """torchvision counts the ReLU behind the first convolution and the pools too."""
    rows = [("stem.{}", "features.0.{}")]
    for index in range(len(config.squeezes)):
        number = 2 + index + sum(pool <= index for pool in config.pools)
        rows.append((f"fires.{index}.{{}}.{{}}", f"features.{number}.{{}}.{{}}"))
    return [*rows, ("head.{}", "classifier.1.{}")]


LANDMARK = Landmark(model=SqueezeNet, variants=VARIANTS, names={"torchvision": torchvision_names})
