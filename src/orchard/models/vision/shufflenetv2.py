"""ShuffleNet V2: practical guidelines for efficient CNN architecture design (Ma et al. 2018, arXiv:1807.11164).

Half of the channels pass a block untouched, the other half through a 1x1, a depthwise 3x3 and a 1x1 convolution; a
shuffle makes the halves of the next block (figure 3c). At a stride both halves are computed from all channels (3d).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.nn.channel_shuffle import channel_shuffle
from orchard.nn.checks import check_images
from orchard.nn.conv_norm import conv_norm, initialise_by_fan_out

part = partial(conv_norm, norm=nn.BatchNorm2d)


@dataclass(frozen=True)
class ShuffleNetV2Config:
    widths: tuple[int, ...]  # table 5: channels of each stage, each of which halves the picture
    last: int = 1024  # channels of the 1x1 convolution before the mean
    depths: tuple[int, ...] = (4, 8, 4)
    stem: int = 24
    pool: bool = True  # a max pool of stride 2 behind the first convolution
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.widths):
            raise ValueError(f"depths and widths name the same stages, got {len(self.depths)} and {len(self.widths)}")
        if any(width % 2 for width in self.widths):
            raise ValueError(f"widths are even, since a block works on one half, got {self.widths}")


def working_half(inputs: int, width: int, stride: int) -> nn.Sequential:
    """1x1, depthwise 3x3 without a ReLU, 1x1: (B, inputs, H, W) → (B, width, H / stride, W / stride)."""
    return nn.Sequential(
        part(inputs, width, 1, activation=nn.ReLU),
        part(width, width, 3, stride=stride, groups=width),
        part(width, width, 1, activation=nn.ReLU),
    )


class Unit(nn.Module):
    """(B, 2 half, H, W) → the same shape, one half of the channels untouched (figure 3c)."""

    def __init__(self, half: int):
        super().__init__()
        self.work = working_half(half, half, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        kept, worked = x.chunk(2, 1)
        return channel_shuffle(torch.cat([kept, self.work(worked)], 1), 2)


class DownUnit(nn.Module):
    """(B, inputs, H, W) → (B, 2 half, H / 2, W / 2), both halves from all channels (figure 3d)."""

    def __init__(self, inputs: int, half: int):
        super().__init__()
        self.line = nn.Sequential(
            part(inputs, inputs, 3, stride=2, groups=inputs), part(inputs, half, 1, activation=nn.ReLU)
        )
        self.work = working_half(inputs, half, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return channel_shuffle(torch.cat([self.line(x), self.work(x)], 1), 2)


class ShuffleNetV2(nn.Module):
    """Pictures (B, C, H, W) of any size, normalised, to logits (B, num_classes)."""

    head_name = "head"
    classifier_layers = ("last", "head")

    def __init__(self, config: ShuffleNetV2Config):
        super().__init__()
        self.config = c = config
        self.stem = part(c.in_channels, c.stem, 3, stride=2, activation=nn.ReLU)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if c.pool else nn.Identity()
        inputs = c.stem
        self.stages = nn.ModuleList()
        for depth, width in zip(c.depths, c.widths, strict=True):
            half = width // 2
            self.stages.append(nn.Sequential(DownUnit(inputs, half), *(Unit(half) for _ in range(depth - 1))))
            inputs = width
        self.strides = tuple((8 if c.pool else 4) << stage for stage in range(len(c.widths)))
        self.channels = c.widths
        self.last = part(inputs, c.last, 1, activation=nn.ReLU)
        self.head = nn.Linear(c.last, c.num_classes)
        initialise_by_fan_out(self)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The map that leaves each stage, finest first, each (B, channels, about H / stride, about W / stride)."""
        check_images(images, self.config.in_channels)
        x = self.pool(self.stem(images))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def features(self, images: Tensor) -> Tensor:
        """The map of the last stage, (B, C, h, w)."""
        return self.feature_maps(images)[-1]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.last(self.features(images)).mean((2, 3)))
        return logits

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        blocks = [(f"stages.{s}.{i}.",) for s, depth in enumerate(self.config.depths) for i in range(depth)]
        return [("stem.",), *blocks, ("last.",), ("head.",)]


VARIANTS = {
    "shufflenet_v2_nano": ShuffleNetV2Config(
        (48, 96), last=128, depths=(3, 3), pool=False, image_size=32, in_channels=1, num_classes=10
    ),
    "shufflenet_v2_x0_5": ShuffleNetV2Config((48, 96, 192)),
    "shufflenet_v2_x1_0": ShuffleNetV2Config((116, 232, 464)),
    "shufflenet_v2_x1_5": ShuffleNetV2Config((176, 352, 704)),
    "shufflenet_v2_x2_0": ShuffleNetV2Config((244, 488, 976), last=2048),
}


def torchvision_names(config: ShuffleNetV2Config) -> list[tuple[str, str]]:
    """torchvision's layers of a branch in one row, ReLUs counted."""
    rows = [("stem.{}", "conv1.{}"), ("last.{}", "conv5.{}"), ("head.{}", "fc.{}")]
    branches = {"line.0.0": "branch1.0", "line.0.1": "branch1.1", "line.1.0": "branch1.2", "line.1.1": "branch1.3"}
    branches |= {"work.0.0": "branch2.0", "work.0.1": "branch2.1", "work.1.0": "branch2.3", "work.1.1": "branch2.4"}
    branches |= {"work.2.0": "branch2.5", "work.2.1": "branch2.6"}
    for s in range(len(config.widths)):
        rows += [
            (f"stages.{s}.{{}}.{ours}.{{}}", f"stage{s + 2}.{{}}.{theirs}.{{}}") for ours, theirs in branches.items()
        ]
    return rows


LANDMARK = Landmark(model=ShuffleNetV2, variants=VARIANTS, names={"torchvision": torchvision_names})
