"""Xception: deep learning with depthwise separable convolutions (Chollet 2016, arXiv:1610.02357).

An Inception block taken to its end: every channel is looked at alone by a 3x3 kernel, and 1x1 convolutions mix the
channels. Blocks of two or three such layers add to what came in, as in a ResNet (figure 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.vision.pooled import PooledClassifier
from orchard.nn.checks import check_images
from orchard.nn.conv import conv, initialise_convolutions


@dataclass(frozen=True)
class XceptionConfig:
    stem: tuple[int, int] = (32, 64)  # channels of the two ordinary convolutions
    entry: tuple[int, ...] = (128, 256, 728)  # of the blocks that halve the picture
    middle: int = 8  # blocks of three layers that keep the shape
    exit: tuple[int, int, int] = (1024, 1536, 2048)  # of the last block and the two layers behind it
    stem_stride: int = 2  # 1 for small pictures
    dropout: float = 0.5  # before the head, on ImageNet (section 4.3)
    image_size: int = 299
    in_channels: int = 3
    num_classes: int = 1000

    @property
    def least(self) -> int:
        """The smallest side of a picture that leaves something behind the stem, which does not pad."""
        return 7 if self.stem_stride == 2 else 5

    def __post_init__(self) -> None:
        if self.stem_stride not in (1, 2):
            raise ValueError(f"stem_stride is 1 or 2, got {self.stem_stride}")
        if self.image_size < self.least:
            raise ValueError(f"image_size is at least {self.least}, got {self.image_size}")


class Separable(nn.Module):
    """A 3x3 kernel for each channel, then 1x1 over all, then batch norm; (B, inputs, H, W) → (B, outputs, H, W)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = conv(inputs, outputs, 1)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.pointwise(self.depthwise(x)))
        return out


class Block(nn.Module):
    """Layers of these widths, each behind a ReLU, and a line past them; at stride 2 both end at half the size."""

    def __init__(self, inputs: int, widths: tuple[int, ...], stride: int, rectify_first: bool = True):
        super().__init__()
        ins = (inputs, *widths[:-1])
        self.layers = nn.ModuleList([Separable(before, width) for before, width in zip(ins, widths, strict=True)])
        self.rectify_first = rectify_first
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if stride == 2 else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != widths[-1]:
            self.shortcut = nn.Sequential(conv(inputs, widths[-1], 1, stride=stride), nn.BatchNorm2d(widths[-1]))

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for i, layer in enumerate(self.layers):
            out = layer(F.relu(out) if i or self.rectify_first else out)
        return self.pool(out) + self.shortcut(x)


class Xception(PooledClassifier):
    """Pictures (B, C, H, W) of at least 7 pixels, normalised, to logits (B, num_classes)."""

    def __init__(self, config: XceptionConfig):
        super().__init__()
        self.config = c = config
        first, second = c.stem
        self.conv1 = nn.Conv2d(c.in_channels, first, 3, stride=c.stem_stride, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(second)
        self.blocks = nn.ModuleList()
        inputs = second
        for i, width in enumerate(c.entry):
            self.blocks.append(Block(inputs, (width, width), 2, rectify_first=i > 0))
            inputs = width
        self.blocks.extend([Block(inputs, (inputs,) * 3, 1) for _ in range(c.middle)])
        grown, third, last = c.exit
        self.blocks.append(Block(inputs, (inputs, grown), 2))
        self.sep3 = Separable(grown, third)
        self.sep4 = Separable(third, last)
        self.channels = (second, *c.entry, last)
        self.strides = tuple(c.stem_stride << i for i in range(len(self.channels)))
        self.dropout = nn.Dropout(c.dropout)
        self.head = nn.Linear(last, c.num_classes)
        initialise_convolutions(self)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The last maps of each size, rectified, finest first, (B, channels, about H / stride, about W / stride)."""
        check_images(images, self.config.in_channels, least=self.config.least)
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        maps = [x]
        entry = len(self.config.entry)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i < entry - 1 or i == len(self.blocks) - 2:  # what the next block halves
                maps.append(F.relu(x))
        x = F.relu(self.sep3(x), inplace=True)
        return [*maps, F.relu(self.sep4(x), inplace=True)]

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        blocks = [(f"blocks.{i}.",) for i in range(len(self.blocks))]
        return [("conv1.", "bn1."), ("conv2.", "bn2."), *blocks, ("sep3.",), ("sep4.",), ("head.",)]


VARIANTS = {
    "xception": XceptionConfig(),
    "xception_nano": XceptionConfig(
        (16, 32), (32, 64, 96), middle=1, exit=(128, 160, 192), stem_stride=1, dropout=0.2, image_size=32,
        in_channels=1, num_classes=10,
    ),
}  # fmt: skip


def timm_names(config: XceptionConfig) -> list[tuple[str, str]]:
    """timm's legacy_xception: everything of a block stands in one sequence, ReLUs counted."""
    rows = [("head.{}", "fc.{}")]
    for n in (3, 4):
        rows += [(f"sep{n}.depthwise.{{}}", f"conv{n}.conv1.{{}}"), (f"sep{n}.bn.{{}}", f"bn{n}.{{}}")]
        rows.append((f"sep{n}.pointwise.{{}}", f"conv{n}.pointwise.{{}}"))
    last = len(config.entry) + config.middle
    for i in range(last + 1):
        ours, theirs = f"blocks.{i}", f"block{i + 1}"
        for layer in range(3 if len(config.entry) <= i < last else 2):
            place = 3 * layer + (0 if i == 0 else 1)  # the first block has no ReLU in front
            rows.append((f"{ours}.layers.{layer}.depthwise.{{}}", f"{theirs}.rep.{place}.conv1.{{}}"))
            rows.append((f"{ours}.layers.{layer}.pointwise.{{}}", f"{theirs}.rep.{place}.pointwise.{{}}"))
            rows.append((f"{ours}.layers.{layer}.bn.{{}}", f"{theirs}.rep.{place + 1}.{{}}"))
        rows += [
            (f"{ours}.shortcut.0.{{}}", f"{theirs}.skip.{{}}"),
            (f"{ours}.shortcut.1.{{}}", f"{theirs}.skipbn.{{}}"),
        ]
    return [*rows, ("{}", "{}")]


LANDMARK = Landmark(
    model=Xception,
    variants=VARIANTS,
    names={"timm": timm_names},
    preprocess={"": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "crop": 0.8975, "interpolation": "bicubic"}},
)
