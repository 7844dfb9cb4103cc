"""Network in Network (Lin, Chen and Yan 2013, arXiv:1312.4400).

Behind each convolution stand two 1x1 convolutions: at every place a small perceptron in the place of a linear filter.
The last gives one map for each class, and the mean over that map is the class's logit: there are no full layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.nn.checks import check_images
from orchard.nn.fan_in import initialise_by_fan_in


@dataclass(frozen=True)
class NINConfig:
    widths: tuple[int, ...]  # of all convolutions, three to an mlpconv layer; the very last is the head's
    kernels: tuple[int, ...]  # side of each layer's first kernel, the last layer's too
    pools: tuple[str, ...]  # "max" or "average", behind each layer but the last
    dropouts: tuple[float, ...]  # behind each pool
    stride: int = 1  # of the first convolution, which is not padded where the stride is not 1
    image_size: int = 32
    in_channels: int = 3
    num_classes: int = 10

    @property
    def least(self) -> int:
        """The smallest side of a picture that leaves something behind the last pool."""
        side = 2
        for _ in self.pools[1:]:
            side *= 2  # the smallest map from which a pool of 3 and stride 2 makes one of that side
        return side if self.stride == 1 else (side - 1) * self.stride + self.kernels[0]

    def __post_init__(self) -> None:
        layers = len(self.kernels)
        if not (len(self.widths) == 3 * layers - 1 and len(self.pools) == len(self.dropouts) == layers - 1):
            raise ValueError(f"{layers} kernels need {3 * layers - 1} widths, and {layers - 1} pools and dropouts")
        for pool in self.pools:
            if pool not in ("max", "average"):
                raise ValueError(f"pools are max or average, got {pool!r}")
        if self.image_size < self.least:
            raise ValueError(f"image_size is at least {self.least}, got {self.image_size}")


def mlpconv(inputs: int, widths: tuple[int, ...], kernel: int, stride: int) -> nn.Sequential:
    """Figure 2: a convolution, then the layers of a perceptron as 1x1 convolutions, each rectified."""
    padding = kernel // 2 if stride == 1 else 0
    layers: list[nn.Module] = [nn.Conv2d(inputs, widths[0], kernel, stride, padding), nn.ReLU(inplace=True)]
    for before, width in pairwise(widths):
        layers += [nn.Conv2d(before, width, 1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class NIN(nn.Module):
    """Pictures (B, C, H, W), normalised, to logits (B, num_classes), none of them below zero."""

    head_name = "head"
    classifier_layers = ("head",)

    def __init__(self, config: NINConfig):
        super().__init__()
        self.config = c = config
        widths = [c.widths[n : n + 3] for n in range(0, len(c.widths), 3)]
        inputs, stride = c.in_channels, c.stride
        self.layers, strides = nn.ModuleList(), []
        for n, (width, kernel) in enumerate(zip(widths, c.kernels, strict=True)):
            self.layers.append(mlpconv(inputs, width, kernel, c.stride if n == 0 else 1))
            strides.append(stride)
            inputs, stride = width[-1], 2 * stride
        kinds = {"max": nn.MaxPool2d(3, stride=2, ceil_mode=True), "average": nn.AvgPool2d(3, stride=2, ceil_mode=True)}
        self.pools = nn.ModuleList([kinds[pool] for pool in c.pools])
        self.dropouts = nn.ModuleList([nn.Dropout(p) for p in c.dropouts])
        self.strides = tuple(strides)
        self.channels = tuple(width[-1] for width in widths)
        self.head = nn.Conv2d(inputs, c.num_classes, 1)
        initialise_by_fan_in(self, self.head)
        nn.init.normal_(self.head.weight, std=0.01)
        assert self.head.bias is not None
        nn.init.ones_(self.head.bias)  # so that the ReLU behind it silences no class at the start

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """What each layer gives, finest first, each (B, channels, about H / stride, about W / stride)."""
        check_images(images, self.config.in_channels, least=self.config.least)
        maps = [self.layers[0](images)]
        for pool, dropout, layer in zip(self.pools, self.dropouts, self.layers[1:], strict=True):
            maps.append(layer(dropout(pool(maps[-1]))))
        return maps

    def features(self, images: Tensor) -> Tensor:
        """The map that the last 1x1 convolution sees, (B, C, h, w)."""
        return self.feature_maps(images)[-1]

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.head(self.features(images))).mean((2, 3))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [*[(f"layers.{n}.",) for n in range(len(self.layers))], ("head.",)]


VARIANTS = {
    "nin_cifar": NINConfig(
        (192, 160, 96, 192, 192, 192, 192, 192), kernels=(5, 5, 3), pools=("max", "average"), dropouts=(0.5, 0.5)
    ),
    "nin_imagenet": NINConfig(
        (96, 96, 96, 256, 256, 256, 384, 384, 384, 1024, 1024), kernels=(11, 5, 3, 3), pools=("max", "max", "max"),
        dropouts=(0.0, 0.0, 0.5), stride=4, image_size=224, num_classes=1000,
    ),
    "nin_nano": NINConfig(
        (32, 32, 24, 64, 64, 64, 96, 96), kernels=(5, 3, 3), pools=("max", "average"), dropouts=(0.1, 0.1),
        in_channels=1,
    ),
}  # fmt: skip

LANDMARK = Landmark(model=NIN, variants=VARIANTS)
