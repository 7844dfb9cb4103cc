"""ResNet: deep residual learning for image recognition (He et al. 2015, arXiv:1512.03385).

Each block adds what it has learned to what came in, so that depth costs no signal: y = relu(x + F(x)).
Two families: the ImageNet ones (section 4.1, table 1) with four stages behind a 7x7 stem, and the thin CIFAR
ones (section 4.2) with three stages behind a 3x3 stem and shortcuts without parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.nn.checks import check_images
from orchard.nn.conv import conv, initialise_convolutions


@dataclass(frozen=True)
class ResNetConfig:
    depths: tuple[int, ...]  # blocks in each stage; every stage after the first halves the picture
    widths: tuple[int, ...] = (64, 128, 256, 512)  # channels inside the blocks of each stage
    bottleneck: bool = False
    stem: str = "7x7"  # "7x7": stride 2 and a max pool, a quarter of the size; "3x3": the size stays
    stem_width: int = 64
    shortcut: str = "projection"  # where the shape changes: a 1x1 convolution (option B) or "pad", zeros (option A)
    stride_on: str = "3x3"  # which convolution of a bottleneck halves the picture: "3x3" (v1.5) or the first "1x1"
    dilated_stages: int = 0  # last stages whose 3x3 convolutions are dilated in place of a stride (DC5: 1, DeepLab: 2)
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
        for name, known in (
            ("stem", ("7x7", "3x3")),
            ("shortcut", ("projection", "pad")),
            ("stride_on", ("3x3", "1x1")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.dilated_stages and not self.bottleneck:
            raise ValueError("dilated_stages needs bottleneck = true: basic blocks are not dilated, as in torchvision")
        if not 0 <= self.dilated_stages < len(self.depths):
            raise ValueError(f"dilated_stages is 0 to {len(self.depths) - 1}, got {self.dilated_stages}")


class PadShortcut(nn.Module):
    """Option A of section 3.3: every `stride`-th pixel, and zeros for the channels that are new."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.new = outputs - inputs
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, (B, inputs, H, W) → (B, width, H / stride, W / stride) (figure 5, left)."""

    def __init__(self, inputs: int, width: int, stride: int, shortcut: nn.Module):
        super().__init__()
        self.conv1 = conv(inputs, width, 3, stride=stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out, inplace=True)


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up, (B, inputs, H, W) → (B, 4 width, H / stride, W / stride) (figure 5, right)."""

    def __init__(self, inputs: int, width: int, stride: int, shortcut: nn.Module, stride_on: str, dilation: int):
        super().__init__()
        first, second = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.conv1 = conv(inputs, width, 1, stride=first)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride=second, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out += self.shortcut(x)
        return F.relu(out, inplace=True)


class ResNet(nn.Module):
    """Pictures (B, C, H, W) of any size, normalised, to logits (B, num_classes)."""

    head_name = "head"
    classifier_layers = ("head",)

    def __init__(self, config: ResNetConfig):
        super().__init__()
        self.config = c = config
        kernel, stride = (7, 2) if c.stem == "7x7" else (3, 1)
        self.conv1 = conv(c.in_channels, c.stem_width, kernel, stride=stride)
        self.bn1 = nn.BatchNorm2d(c.stem_width)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if c.stem == "7x7" else nn.Identity()
        self.layers = nn.ModuleList()
        inputs, reduction, dilation = c.stem_width, 4 if c.stem == "7x7" else 1, 1
        strides = []
        for stage, (depth, width) in enumerate(zip(c.depths, c.widths, strict=True)):
            before, stride = dilation, 1 if stage == 0 else 2
            if stage >= len(c.depths) - c.dilated_stages:
                stride, dilation = 1, 2 * dilation
            blocks = []
            for i in range(depth):
                # The first block of a dilated stage keeps the dilation of the stage before it, as in torchvision.
                shape = (stride, before) if i == 0 else (1, dilation)
                blocks.append(self._block(inputs, width, *shape))
                inputs = c.expansion * width
            self.layers.append(nn.Sequential(*blocks))
            reduction *= stride
            strides.append(reduction)
        self.strides = tuple(strides)
        self.channels = tuple(c.expansion * width for width in c.widths)
        self.head = nn.Linear(inputs, c.num_classes)
        initialise_convolutions(self)

    def _block(self, inputs: int, width: int, stride: int, dilation: int) -> nn.Module:
        c = self.config
        outputs = c.expansion * width
        shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            if c.shortcut == "pad":
                shortcut = PadShortcut(inputs, outputs, stride)
            else:
                shortcut = nn.Sequential(conv(inputs, outputs, 1, stride=stride), nn.BatchNorm2d(outputs))
        if c.bottleneck:
            return Bottleneck(inputs, width, stride, shortcut, c.stride_on, dilation)
        return BasicBlock(inputs, width, stride, shortcut)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The map that leaves each stage, finest first, each (B, channels, H / stride, W / stride)."""
        check_images(images, self.config.in_channels)
        x = self.pool(F.relu(self.bn1(self.conv1(images)), inplace=True))
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps

    def features(self, images: Tensor) -> Tensor:
        """The map of the last stage, (B, C, h, w)."""
        return self.feature_maps(images)[-1]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images).mean((2, 3)))
        return logits

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        blocks = [(f"layers.{s}.{i}.",) for s, depth in enumerate(self.config.depths) for i in range(depth)]
        return [("conv1.", "bn1."), *blocks, ("head.",)]


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


def torchvision_names(config: ResNetConfig) -> list[tuple[str, str]]:
    """The names of torchvision, which timm kept."""
    rows = []
    for stage in range(len(config.depths)):
        rows.append((f"layers.{stage}.{{}}.shortcut.{{}}", f"layer{stage + 1}.{{}}.downsample.{{}}"))
        rows.append((f"layers.{stage}.{{}}", f"layer{stage + 1}.{{}}"))
    return [*rows, ("head.{}", "fc.{}"), ("{}", "{}")]


LANDMARK = Landmark(
    model=ResNet, variants=VARIANTS, names={"torchvision": torchvision_names, "timm": torchvision_names}
)
