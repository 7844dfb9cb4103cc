"""VGG: very deep convolutional networks (Simonyan and Zisserman 2014, arXiv:1409.1556).

Nothing but 3x3 convolutions and 2x2 pools, as deep as they could be trained, then two wide hidden layers.
The variants with batch norm came later and are torchvision's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark, Rule
from orchard.nn.checks import check_images
from orchard.nn.conv import initialise_convolutions, initialise_linears


@dataclass(frozen=True)
class VGGConfig:
    depths: tuple[int, ...]  # convolutions in each stage; a pool that halves the picture ends each
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)  # channels of each stage
    batch_norm: bool = False
    pool_size: int = 7  # side of the map that the first hidden layer sees
    hidden: int = 4096  # units in each of the two hidden layers
    dropout: float = 0.5
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000

    @property
    def least(self) -> int:
        """The smallest side of a picture that leaves something behind the last pool."""
        return int(2 ** len(self.depths))

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.widths):
            raise ValueError(f"depths and widths name the same stages, got {len(self.depths)} and {len(self.widths)}")
        if self.image_size < self.least:
            raise ValueError(f"image_size is at least {self.least}, got {self.image_size}")


class VGG(nn.Module):
    """Pictures (B, C, H, W) of at least 32 pixels, normalised, to logits (B, num_classes)."""

    head_name = "head"
    classifier_layers = ("fc1", "fc2", "head")

    def __init__(self, config: VGGConfig):
        super().__init__()
        self.config = c = config
        layers: list[nn.Module] = []
        inputs = c.in_channels
        for depth, width in zip(c.depths, c.widths, strict=True):
            for _ in range(depth):
                layers.append(nn.Conv2d(inputs, width, 3, padding=1))
                if c.batch_norm:
                    layers.append(nn.BatchNorm2d(width))
                layers.append(nn.ReLU(inplace=True))
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.trunk = nn.Sequential(*layers)
        self.strides = tuple(2 << stage for stage in range(len(c.widths)))
        self.channels = c.widths
        self.pool = nn.AdaptiveAvgPool2d(c.pool_size)
        self.fc1 = nn.Linear(inputs * c.pool_size**2, c.hidden)
        self.fc2 = nn.Linear(c.hidden, c.hidden)
        self.head = nn.Linear(c.hidden, c.num_classes)
        self.dropout = nn.Dropout(c.dropout)
        initialise_convolutions(self)
        initialise_linears(self, std=0.01)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """What the pool of each stage leaves, finest first, each (B, channels, H / stride, W / stride)."""
        check_images(images, self.config.in_channels, least=self.config.least)
        x, maps = images, []
        for layer in self.trunk:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
        return maps

    def features(self, images: Tensor) -> Tensor:
        """What the last pool leaves, (B, C, h, w)."""
        return self.feature_maps(images)[-1]

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(self.features(images)).flatten(1)
        x = self.dropout(F.relu(self.fc1(x)))
        x = self.dropout(F.relu(self.fc2(x)))
        logits: Tensor = self.head(x)
        return logits

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        convolutions: list[tuple[str, ...]] = []
        for i, layer in enumerate(self.trunk):
            if isinstance(layer, nn.Conv2d):
                convolutions.append((f"trunk.{i}.", f"trunk.{i + 1}."))  # the norm behind it, where there is one
        return [*convolutions, ("fc1.",), ("fc2.",), ("head.",)]


DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # table 1: A, B, D, E

VARIANTS = {
    **{f"vgg{depth}": VGGConfig(convolutions) for depth, convolutions in DEPTHS.items()},
    **{f"vgg{depth}_bn": VGGConfig(convolutions, batch_norm=True) for depth, convolutions in DEPTHS.items()},
    "vgg_nano": VGGConfig(
        (1, 1, 2), (32, 64, 128), batch_norm=True, pool_size=4, hidden=256, image_size=32, in_channels=1, num_classes=10
    ),
}


def torchvision_names(config: VGGConfig) -> list[tuple[str, str]]:
    return [
        ("trunk.{}", "features.{}"),
        ("fc1.{}", "classifier.0.{}"),
        ("fc2.{}", "classifier.3.{}"),
        ("head.{}", "classifier.6.{}"),
    ]


def timm_names(config: VGGConfig) -> list[Rule | tuple[str, str]]:
    """timm writes the two hidden layers as convolutions over the pooled map: the same numbers in another shape."""
    side = config.pool_size
    return [
        ("trunk.{}", "features.{}"),
        Rule(
            "fc1.weight",
            ("pre_logits.fc1.weight",),
            join=lambda kernel: kernel.flatten(1),
            split=lambda matrix: (matrix.view(len(matrix), -1, side, side),),
        ),
        ("fc1.bias", "pre_logits.fc1.bias"),
        Rule(
            "fc2.weight",
            ("pre_logits.fc2.weight",),
            join=lambda kernel: kernel.flatten(1),
            split=lambda matrix: (matrix[:, :, None, None],),
        ),
        ("fc2.bias", "pre_logits.fc2.bias"),
        ("head.{}", "head.fc.{}"),
    ]


LANDMARK = Landmark(model=VGG, variants=VARIANTS, names={"torchvision": torchvision_names, "timm": timm_names})
