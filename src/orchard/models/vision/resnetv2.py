"""ResNet v2: identity mappings in deep residual networks (He et al. 2016, arXiv:1603.05027).

The norm and the ReLU move in front of each convolution, and nothing stands on the sum any more, so that
the signal passes from any block to any other unchanged: x + F(relu(norm(x))) (section 2, figure 1b).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark, Rule
from orchard.models.vision.pooled import PooledClassifier
from orchard.nn.checks import check_images
from orchard.nn.conv import conv, initialise_convolutions, initialise_linears


@dataclass(frozen=True)
class ResNetV2Config:
    depths: tuple[int, ...]  # blocks in each stage; every stage after the first halves the picture
    widths: tuple[int, ...] = (64, 128, 256, 512)  # channels inside the blocks of each stage
    bottleneck: bool = True
    stem: str = "7x7"  # "7x7": stride 2 and a max pool, a quarter of the size; "3x3": the size stays
    stem_width: int = 64
    stride_on: str = "3x3"  # which convolution of a bottleneck halves the picture: "3x3" or the first "1x1"
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000

    @property
    def expansion(self) -> int:
        """How many times wider a block's output is than its inside."""
        return 4 if self.bottleneck else 1

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.widths):
            raise ValueError(f"depths and widths name the same stages, got {len(self.depths)} and {len(self.widths)}")
        for name, known in (("stem", ("7x7", "3x3")), ("stride_on", ("3x3", "1x1"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, got {getattr(self, name)!r}")


class PreActBasic(nn.Module):
    """Two 3x3 convolutions, each behind its norm, (B, inputs, H, W) → (B, width, H / stride, W / stride).

    `dropout` stands between the two, where wide networks have it.
    """

    def __init__(self, inputs: int, width: int, stride: int, dropout: float = 0.0):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, width, 3, stride=stride)
        self.norm2 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv(width, width, 3)
        self.shortcut = conv(inputs, width, 1, stride=stride) if stride != 1 or inputs != width else None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.relu(self.norm1(x), inplace=True)
        if self.shortcut is not None:
            x = self.shortcut(out)  # a projection sees the activated map, as in the authors' code
        out = self.conv1(out)
        out = self.conv2(self.dropout(F.relu(self.norm2(out), inplace=True)))
        return out + x


class PreActBottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up, each behind its norm, (B, inputs, H, W) → (B, 4 width, H / stride, W / stride)."""

    def __init__(self, inputs: int, width: int, stride: int, stride_on: str):
        super().__init__()
        first, second = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, width, 1, stride=first)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride=second)
        self.norm3 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, 4 * width, 1)
        self.shortcut = conv(inputs, 4 * width, 1, stride=stride) if stride != 1 or inputs != 4 * width else None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.relu(self.norm1(x), inplace=True)
        if self.shortcut is not None:
            x = self.shortcut(out)
        out = self.conv1(out)
        out = self.conv2(F.relu(self.norm2(out), inplace=True))
        out = self.conv3(F.relu(self.norm3(out), inplace=True))
        return out + x


class ResNetV2(PooledClassifier):
    """Pictures (B, C, H, W) of any size, normalised, to logits (B, num_classes)."""

    def __init__(self, config: ResNetV2Config):
        super().__init__()
        self.config = c = config
        kernel, stride = (7, 2) if c.stem == "7x7" else (3, 1)
        self.stem = conv(c.in_channels, c.stem_width, kernel, stride=stride)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if c.stem == "7x7" else nn.Identity()
        self.layers = nn.ModuleList()
        inputs = c.stem_width
        for stage, (depth, width) in enumerate(zip(c.depths, c.widths, strict=True)):
            blocks = []
            for i in range(depth):
                blocks.append(self._block(inputs, width, stride=2 if stage > 0 and i == 0 else 1))
                inputs = c.expansion * width
            self.layers.append(nn.Sequential(*blocks))
        self.strides = tuple((4 if c.stem == "7x7" else 1) << stage for stage in range(len(c.depths)))
        self.channels = tuple(c.expansion * width for width in c.widths)
        self.norm = nn.BatchNorm2d(inputs)
        self.head = nn.Linear(inputs, c.num_classes)
        initialise_convolutions(self)
        initialise_linears(self, std=0.01)

    def _block(self, inputs: int, width: int, stride: int) -> nn.Module:
        if self.config.bottleneck:
            return PreActBottleneck(inputs, width, stride, self.config.stride_on)
        return PreActBasic(inputs, width, stride)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The map that leaves each stage, finest first, each (B, channels, H / stride, W / stride).

        The last one has the final norm and ReLU behind it; the others are sums, as the next block takes them.
        """
        check_images(images, self.config.in_channels)
        x = self.pool(self.stem(images))
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        maps[-1] = F.relu(self.norm(x), inplace=True)
        return maps

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        blocks = [(f"layers.{s}.{i}.",) for s, depth in enumerate(self.config.depths) for i in range(depth)]
        return [("stem.",), *blocks, ("norm.",), ("head.",)]


DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}


def cifar(depth: int) -> ResNetV2Config:
    """The bottleneck network of 9n + 2 layers for pictures of 32 pixels, as the authors' Torch code builds it."""
    n = (depth - 2) // 9
    return ResNetV2Config(
        (n, n, n), (16, 32, 64), stem="3x3", stem_width=16, stride_on="1x1", image_size=32, num_classes=10
    )


VARIANTS = {
    **{f"resnetv2_{depth}": ResNetV2Config(blocks, bottleneck=depth >= 50) for depth, blocks in DEPTHS.items()},
    **{f"preact{depth}": cifar(depth) for depth in (164, 1001)},
    "resnetv2_nano": ResNetV2Config(
        (1, 1, 1), (16, 32, 64), False, stem="3x3", stem_width=16, image_size=32, in_channels=1, num_classes=10
    ),
}


def timm_names(config: ResNetV2Config) -> list[Rule | tuple[str, str]]:
    """timm's head is a 1x1 convolution over the pooled map, ours the same matrix without the two ones."""
    return [
        ("stem.{}", "stem.conv.{}"),
        ("layers.{}.{}.shortcut.{}", "stages.{}.blocks.{}.downsample.conv.{}"),
        ("layers.{}.{}.{}", "stages.{}.blocks.{}.{}"),
        Rule("head.weight", ("head.fc.weight",), lambda w: w.flatten(1), lambda w: (w[:, :, None, None],)),
        ("head.bias", "head.fc.bias"),
        ("norm.{}", "norm.{}"),
    ]


LANDMARK = Landmark(model=ResNetV2, variants=VARIANTS, names={"timm": timm_names})
