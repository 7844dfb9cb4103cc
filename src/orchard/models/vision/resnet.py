"""ResNet: deep residual learning for image recognition (He et al. 2015, arXiv:1512.03385).

Each block adds what it has learned to what came in, so that depth costs no signal: y = relu(x + F(x)).
Two families: the ImageNet ones (section 4.1, table 1) with four stages behind a 7x7 stem, and the thin CIFAR
ones (section 4.2) with three stages behind a 3x3 stem and shortcuts without parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.vision.residual import ResidualConfig, ResidualNetwork, plain_stem, projection
from orchard.nn.conv import conv


@dataclass(frozen=True)
class ResNetConfig(ResidualConfig):
    bottleneck: bool = False
    shortcut: str = "projection"  # where the shape changes: a 1x1 convolution (option B) or "pad", zeros (option A)
    stride_on: str = "3x3"  # which convolution of a bottleneck halves the picture: "3x3" (v1.5) or the first "1x1"

    @property
    def expansion(self) -> int:
        return 4 if self.bottleneck else 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("shortcut", "projection", "pad")
        self.check("stride_on", "3x3", "1x1")
        if self.dilated_stages and not self.bottleneck:
            raise ValueError("dilated_stages needs bottleneck = true: basic blocks are not dilated, as in torchvision")


class PadShortcut(nn.Module):
    """Option A of section 3.3: every `stride`-th pixel, and zeros for the channels that are new."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.new = outputs - inputs
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, (B, inputs, H, W) → (B, width, H / stride, W / stride) (figure 5, left).

    `gate` sees what the block has learned, before the sum.
    """

    def __init__(self, inputs: int, width: int, stride: int, shortcut: nn.Module, gate: nn.Module | None = None):
        super().__init__()
        self.conv1 = conv(inputs, width, 3, stride=stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.gate = gate or nn.Identity()
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.gate(self.bn2(self.conv2(out)))
        out += self.shortcut(x)
        return F.relu(out, inplace=True)


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up, (B, inputs, H, W) → (B, outputs, H / stride, W / stride) (figure 5, right).

    `inner` are the channels behind the first and the second convolution. `gate` sees what the block has learned,
    before the sum.
    """

    def __init__(
        self, inputs: int, inner: tuple[int, int], outputs: int, stride: int, shortcut: nn.Module, *,
        stride_on: str = "3x3", dilation: int = 1, groups: int = 1, gate: nn.Module | None = None,
    ):  # fmt: skip
        super().__init__()
        first, second = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.conv1 = conv(inputs, inner[0], 1, stride=first)
        self.bn1 = nn.BatchNorm2d(inner[0])
        self.conv2 = conv(*inner, 3, stride=second, dilation=dilation, groups=groups)
        self.bn2 = nn.BatchNorm2d(inner[1])
        self.conv3 = conv(inner[1], outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.gate = gate or nn.Identity()
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.gate(self.bn3(self.conv3(out)))
        out += self.shortcut(x)
        return F.relu(out, inplace=True)


class ResNet(ResidualNetwork):
    def __init__(self, config: ResNetConfig):
        super().__init__(config, *plain_stem(config), partial(make_block, config))


def make_block(c: ResNetConfig, inputs: int, width: int, stride: int, dilation: int) -> nn.Module:
    outputs = c.expansion * width
    if c.shortcut == "pad" and (stride != 1 or inputs != outputs):
        shortcut: nn.Module = PadShortcut(inputs, outputs, stride)
    else:
        shortcut = projection(inputs, outputs, stride)
    if c.bottleneck:
        return Bottleneck(inputs, (width, width), outputs, stride, shortcut, stride_on=c.stride_on, dilation=dilation)
    return BasicBlock(inputs, width, stride, shortcut)


DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # table 1


def cifar(depth: int) -> ResNetConfig:
    """The thin network of 6n + 2 layers of section 4.2, for pictures of 32 pixels."""
    n = (depth - 2) // 6
    return ResNetConfig(
        (n, n, n), (16, 32, 64), stem="3x3", stem_width=16, shortcut="pad", image_size=32, num_classes=10
    )


def small(*widths: int) -> ResNetConfig:
    """One block a stage, for grey pictures of 28 to 32 pixels on a laptop."""
    return ResNetConfig(
        (1,) * len(widths), widths, stem="3x3", stem_width=widths[0], image_size=32, in_channels=1, num_classes=10
    )


VARIANTS = {
    **{f"resnet{depth}": ResNetConfig(blocks, bottleneck=depth >= 50) for depth, blocks in DEPTHS.items()},
    **{f"resnet{depth}": cifar(depth) for depth in (20, 32, 44, 56, 110, 1202)},
    "resnet_nano": small(16, 32, 64),
    "resnet_tiny": small(32, 64, 128),
}


def torchvision_names(config: ResidualConfig) -> list[tuple[str, str]]:
    """The names of torchvision, which timm kept."""
    rows = []
    for stage in range(len(config.depths)):
        rows.append((f"layers.{stage}.{{}}.shortcut.{{}}", f"layer{stage + 1}.{{}}.downsample.{{}}"))
        rows.append((f"layers.{stage}.{{}}", f"layer{stage + 1}.{{}}"))
    return [*rows, ("head.{}", "fc.{}"), ("{}", "{}")]


LANDMARK = Landmark(
    model=ResNet, variants=VARIANTS, names={"torchvision": torchvision_names, "timm": torchvision_names}
)
