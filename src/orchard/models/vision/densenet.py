"""DenseNet: densely connected convolutional networks (Huang et al. 2016, arXiv:1608.06993).

Every layer reads what all layers before it in its block have made and adds k maps of its own: x = [x, F(x)]. Between
blocks a transition halves the picture. Networks for ImageNet (table 1) and for CIFAR (end of section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.vision.pooled import PooledClassifier
from orchard.nn.checks import check_images
from orchard.nn.conv import conv


@dataclass(frozen=True)
class DenseNetConfig:
    depths: tuple[int, ...]  # layers in each block
    growth: int = 32  # k: maps that a layer adds
    stem_width: int = 64
    stem: str = "7x7"  # "7x7": stride 2 and a max pool, a quarter of the size; "3x3": the size stays
    bottleneck: bool = True  # a 1x1 convolution to 4 k maps before each 3x3 (DenseNet-B)
    compression: float = 0.5  # share of the maps that a transition keeps (DenseNet-C), 1 for all
    dropout: float = 0.0  # behind every convolution but the first
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000

    @property
    def least(self) -> int:
        """The smallest side of a picture that leaves something behind the last transition."""
        return int(2 ** (len(self.depths) - 1)) * (4 if self.stem == "7x7" else 1) - (3 if self.stem == "7x7" else 0)

    def __post_init__(self) -> None:
        if self.stem not in ("7x7", "3x3"):
            raise ValueError(f"stem is one of 7x7, 3x3, got {self.stem!r}")
        if not 0 < self.compression <= 1:
            raise ValueError(f"compression is above 0 and at most 1, got {self.compression}")
        if self.image_size < self.least:
            raise ValueError(f"image_size is at least {self.least}, got {self.image_size}")


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1; norm, ReLU, 3x3: (B, inputs, H, W) → (B, k, H, W)."""

    def __init__(self, inputs: int, growth: int, dropout: float):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, 4 * growth, 1)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = conv(4 * growth, growth, 3)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        out = self.dropout(self.conv1(F.relu(self.norm1(x), inplace=True)))
        new: Tensor = self.dropout(self.conv2(F.relu(self.norm2(out), inplace=True)))
        return new


class PlainLayer(nn.Module):
    """Norm, ReLU, 3x3: (B, inputs, H, W) → (B, k, H, W)."""

    def __init__(self, inputs: int, growth: int, dropout: float):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, growth, 3)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        new: Tensor = self.dropout(self.conv1(F.relu(self.norm1(x), inplace=True)))
        return new


class DenseBlock(nn.ModuleList):
    """Layers that each read all that was there before, (B, C, H, W) → (B, C + n k, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = torch.cat([x, layer(x)], 1)
        return x


class Transition(nn.Module):
    """Norm, ReLU, 1x1 and the mean of 2x2 cells, (B, inputs, H, W) → (B, outputs, H / 2, W / 2)."""

    def __init__(self, inputs: int, outputs: int, dropout: float):
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = conv(inputs, outputs, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.dropout(self.conv(F.relu(self.norm(x), inplace=True))), 2)


class DenseNet(PooledClassifier):
    """Pictures (B, C, H, W), normalised, to logits (B, num_classes)."""

    def __init__(self, config: DenseNetConfig):
        super().__init__()
        self.config = c = config
        large = c.stem == "7x7"
        self.stem = conv(c.in_channels, c.stem_width, 7 if large else 3, stride=2 if large else 1)
        self.norm0 = nn.BatchNorm2d(c.stem_width) if large else nn.Identity()  # on CIFAR the first layer brings it
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        maps, channels = c.stem_width, []
        layer = DenseLayer if c.bottleneck else PlainLayer
        for stage, depth in enumerate(c.depths):
            if stage:
                kept = int(maps * c.compression)
                self.transitions.append(Transition(maps, kept, c.dropout))
                maps = kept
            self.blocks.append(DenseBlock(layer(maps + i * c.growth, c.growth, c.dropout) for i in range(depth)))
            maps += depth * c.growth
            channels.append(maps)
        self.channels = tuple(channels)
        self.strides = tuple((4 if large else 1) << stage for stage in range(len(c.depths)))
        self.norm = nn.BatchNorm2d(maps)
        self.head = nn.Linear(maps, c.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)  # by fan-in
        nn.init.zeros_(self.head.bias)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """What each block leaves, before its transition, finest first, (B, channels, H / stride, W / stride).

        The last one has the final norm and ReLU behind it.
        """
        check_images(images, self.config.in_channels, least=self.config.least)
        x = self.stem(images)
        if self.config.stem == "7x7":
            x = F.max_pool2d(F.relu(self.norm0(x), inplace=True), 3, stride=2, padding=1)
        maps = [self.blocks[0](x)]
        for transition, block in zip(self.transitions, self.blocks[1:], strict=True):
            maps.append(block(transition(maps[-1])))
        maps[-1] = F.relu(self.norm(maps[-1]), inplace=True)
        return maps

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        groups: list[tuple[str, ...]] = [("stem.", "norm0.")]
        for stage, depth in enumerate(self.config.depths):
            if stage:
                groups.append((f"transitions.{stage - 1}.",))
            groups += [(f"blocks.{stage}.{i}.",) for i in range(depth)]
        return [*groups, ("norm.",), ("head.",)]


def cifar(depth: int, growth: int, bc: bool) -> DenseNetConfig:
    """L layers in three blocks for pictures of 32 pixels; `bc` with bottlenecks and compression."""
    layers = (depth - 4) // (6 if bc else 3)
    return DenseNetConfig(
        (layers,) * 3, growth, 2 * growth if bc else 16, "3x3", bc, 0.5 if bc else 1.0, image_size=32, num_classes=10
    )


VARIANTS = {
    "densenet121": DenseNetConfig((6, 12, 24, 16)),
    "densenet161": DenseNetConfig((6, 12, 36, 24), growth=48, stem_width=96),
    "densenet169": DenseNetConfig((6, 12, 32, 32)),
    "densenet201": DenseNetConfig((6, 12, 48, 32)),
    "densenet264": DenseNetConfig((6, 12, 64, 48)),
    **{f"densenet_{depth}_{k}": cifar(depth, k, bc=False) for depth, k in ((40, 12), (100, 12), (100, 24))},
    **{f"densenet_bc_{depth}_{k}": cifar(depth, k, bc=True) for depth, k in ((100, 12), (250, 24), (190, 40))},
    "densenet_nano": DenseNetConfig((2, 4, 4), 8, 16, "3x3", dropout=0.1, image_size=32, in_channels=1, num_classes=10),
}


def torchvision_names(config: DenseNetConfig) -> list[tuple[str, str]]:
    """The names of torchvision, which timm kept; both count blocks and layers from one."""
    if not config.bottleneck:
        return []
    rows = [("stem.{}", "features.conv0.{}"), ("norm0.{}", "features.norm0.{}")]
    for stage, depth in enumerate(config.depths):
        rows += [
            (f"blocks.{stage}.{i}.{{}}", f"features.denseblock{stage + 1}.denselayer{i + 1}.{{}}") for i in range(depth)
        ]
        rows.append((f"transitions.{stage}.{{}}", f"features.transition{stage + 1}.{{}}"))
    return [*rows, ("norm.{}", "features.norm5.{}"), ("head.{}", "classifier.{}")]


def torchvision_file_names(config: DenseNetConfig) -> list[tuple[str, str]]:
    """The files that torchvision still hands out are older than its code and call `norm1` `norm.1`."""
    rows = []
    for ours, theirs in torchvision_names(config):
        if ours.startswith("blocks."):
            for kind in ("norm", "conv"):
                rows.append((ours.replace("{}", f"{kind}{{}}.{{}}"), theirs.replace("{}", f"{kind}.{{}}.{{}}")))
        else:
            rows.append((ours, theirs))
    return rows


LANDMARK = Landmark(
    model=DenseNet,
    variants=VARIANTS,
    names={
        "torchvision": torchvision_names, "timm": torchvision_names, "torchvision_files": torchvision_file_names,
    },
)  # fmt: skip
