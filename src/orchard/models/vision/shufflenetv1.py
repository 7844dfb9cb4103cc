"""ShuffleNet: an extremely efficient convolutional neural network for mobile devices (Zhang et al. 2017,
arXiv:1707.01083).

1x1 convolutions in groups, and a shuffle of channels behind the first of them, without which no group would ever hear
of another (figure 2). At a stride the line is a mean over 3x3, and joined at the side, not added (figure 2c).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark, Rule
from orchard.models.vision.pooled import PooledClassifier
from orchard.nn.channel_shuffle import channel_shuffle
from orchard.nn.checks import check_images
from orchard.nn.conv_norm import conv_norm, initialise_by_fan_out

part = partial(conv_norm, norm=nn.BatchNorm2d)


@dataclass(frozen=True)
class ShuffleNetV1Config:
    groups: int  # of both 1x1 convolutions of a unit
    widths: tuple[int, ...]  # table 1: channels of each stage, each of which halves the picture
    stem: int = 24
    depths: tuple[int, ...] = (4, 8, 4)
    pool: bool = True  # a max pool of stride 2 behind the first convolution
    head_bias: bool = False  # the authors' weights have none
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.widths):
            raise ValueError(f"depths and widths name the same stages, got {len(self.depths)} and {len(self.widths)}")
        for inputs, width in zip((self.stem, *self.widths), self.widths, strict=False):
            for channels in (width // 4, width - inputs, width):
                if channels < 1 or channels % self.groups:
                    raise ValueError(f"a stage of {width} channels behind {inputs} does not divide into {self.groups}")


class Unit(nn.Module):
    """(B, inputs, H, W) → (B, width, H / stride, W / stride): 1x1 in groups, shuffle, depthwise 3x3, 1x1 in groups.

    Added to the input at stride 1 (figure 2b), beside its 3x3 means at stride 2 (figure 2c), where `inputs` of the
    channels that go out are those means. The first unit of the network does not group what the stem gives
    (section 3.2).
    """

    def __init__(self, inputs: int, width: int, stride: int, groups: int, group_input: bool):
        super().__init__()
        inside = width // 4
        self.stride, self.groups = stride, groups
        self.reduce = part(inputs, inside, 1, groups=groups if group_input else 1, activation=nn.ReLU)
        self.depthwise = part(inside, inside, 3, stride=stride, groups=inside)
        self.expand = part(inside, width - inputs if stride == 2 else width, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        # The authors' code shuffles behind the depthwise convolution, not before it, and by the inverse of what
        # section 3.1 says: inside / groups runs dealt out, not `groups` of them. Their weights stand accordingly.
        inside = self.depthwise(self.reduce(x))
        out = self.expand(channel_shuffle(inside, inside.shape[1] // self.groups))
        if self.stride == 1:
            return F.relu(x + out)
        return torch.cat([F.avg_pool2d(x, 3, stride=2, padding=1), F.relu(out)], 1)


class ShuffleNetV1(PooledClassifier):
    """Pictures (B, C, H, W) of any size, normalised, to logits (B, num_classes)."""

    def __init__(self, config: ShuffleNetV1Config):
        super().__init__()
        self.config = c = config
        self.stem = part(c.in_channels, c.stem, 3, stride=2, activation=nn.ReLU)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if c.pool else nn.Identity()
        inputs = c.stem
        self.stages = nn.ModuleList()
        for stage, (depth, width) in enumerate(zip(c.depths, c.widths, strict=True)):
            units = [Unit(inputs, width, 2, c.groups, group_input=stage > 0)]
            units += [Unit(width, width, 1, c.groups, group_input=True) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(*units))
            inputs = width
        self.strides = tuple((8 if c.pool else 4) << stage for stage in range(len(c.widths)))
        self.channels = c.widths
        self.head = nn.Linear(inputs, c.num_classes, bias=c.head_bias)
        initialise_by_fan_out(self)
        nn.init.normal_(self.head.weight, std=0.01)
        if c.head_bias:
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

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        blocks = [(f"stages.{s}.{i}.",) for s, depth in enumerate(self.config.depths) for i in range(depth)]
        return [("stem.",), *blocks, ("head.",)]


WIDTHS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # table 1: of the first stage at 1x, by the number of groups
# Multipliers and channels of the stem: 1x of every number of groups, the others of those that the authors published.
SIZES = {
    **{("x1_0", groups): (1.0, 24) for groups in WIDTHS},
    **{("x0_5", 3): (0.5, 12), ("x0_5", 8): (0.5, 16), ("x0_25", 3): (0.25, 6)},
    **{("x1_5", groups): (1.5, 24) for groups in (3, 8)},
    **{("x2_0", groups): (2.0, 48) for groups in (3, 8)},
}


def published(groups: int, multiplier: float, stem: int) -> ShuffleNetV1Config:
    """Three stages, each twice as wide as the one before."""
    first = int(multiplier * WIDTHS[groups])
    return ShuffleNetV1Config(groups, (first, 2 * first, 4 * first), stem)


VARIANTS = {
    "shufflenet_v1_nano": ShuffleNetV1Config(
        3, (96, 192), depths=(3, 3), pool=False, image_size=32, in_channels=1, num_classes=10
    ),
    **{f"shufflenet_v1_{size}_g{groups}": published(groups, *row) for (size, groups), row in SIZES.items()},
}


def megvii_names(config: ShuffleNetV1Config) -> list[Rule | tuple[str, str]]:
    """The authors' names. Their networks see blue, green and red in this order, ours the other way round."""
    rows: list[Rule | tuple[str, str]] = [
        Rule("stem.0.weight", ("first_conv.0.weight",), lambda w: w.flip(1), lambda w: (w.flip(1),)),
        ("stem.{}", "first_conv.{}"),
        ("head.{}", "classifier.0.{}"),
    ]
    parts = {"reduce.0": "branch_main_1.0", "reduce.1": "branch_main_1.1", "expand.{}": "branch_main_2.{}"}
    parts |= {"depthwise.0": "branch_main_1.3", "depthwise.1": "branch_main_1.4"}
    number = 0
    for s, depth in enumerate(config.depths):
        for i in range(depth):
            rows += [(f"stages.{s}.{i}.{a}.{{}}", f"features.{number}.{b}.{{}}") for a, b in parts.items()]
            number += 1
    return rows


LANDMARK = Landmark(
    model=ShuffleNetV1,
    variants=VARIANTS,
    names={"megvii": megvii_names},
    preprocess={"megvii": {"mean": (0.0,) * 3, "std": (1 / 255,) * 3}},
)
