"""What residual networks share: a stem, stages of blocks, the mean over the last map and a linear layer.

ResNet (arXiv:1512.03385, table 1) set this plan; those after it changed the block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from orchard.models.vision.pooled import PooledClassifier
from orchard.nn.checks import check_images
from orchard.nn.conv import conv, initialise_convolutions

Activation = type[nn.ReLU] | type[nn.SiLU]


@dataclass(frozen=True)
class ResidualConfig:
    """What every residual network is told, ResNet and those that change its blocks (ResNeXt, SE-ResNet)."""

    depths: tuple[int, ...]  # blocks in each stage; every stage after the first halves the picture
    widths: tuple[int, ...] = (64, 128, 256, 512)  # channels inside the blocks of each stage
    stem: str = "7x7"  # "7x7": stride 2 and a max pool, a quarter of the size; "3x3": the size stays
    stem_width: int = 64
    dilated_stages: int = 0  # last stages whose 3x3 convolutions are dilated in place of a stride (DC5: 1, DeepLab: 2)
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000
    stems: ClassVar[tuple[str, ...]] = ("7x7", "3x3")

    @property
    def expansion(self) -> int:
        """How many times wider a block's output is than its inside."""
        return 4

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.widths):
            raise ValueError(f"depths and widths name the same stages, got {len(self.depths)} and {len(self.widths)}")
        if not 0 <= self.dilated_stages < len(self.depths):
            raise ValueError(f"dilated_stages is 0 to {len(self.depths) - 1}, got {self.dilated_stages}")
        self.check("stem", *self.stems)

    def check(self, name: str, *known: str) -> None:
        """Raise ValueError unless the field of this name is one of those known."""
        if getattr(self, name) not in known:
            raise ValueError(f"{name} is one of {', '.join(known)}, got {getattr(self, name)!r}")


class ResidualNetwork(PooledClassifier):
    """Pictures (B, C, H, W) of any size, normalised, to logits (B, num_classes).

    `stem` is what stands before the first norm, `pool` what stands behind it. `block(inputs, width, stride, dilation)`
    makes a block that gives `config.expansion` times `width` channels. `activation` stands between norm and pool.
    """

    def __init__(
        self, config: ResidualConfig, stem: nn.Module, pool: nn.Module,
        block: Callable[[int, int, int, int], nn.Module], activation: Activation = nn.ReLU,
    ):  # fmt: skip
        super().__init__()
        self.config = c = config
        self.conv1 = stem
        self.bn1 = nn.BatchNorm2d(c.stem_width)
        self.activation = activation(inplace=True)
        self.pool = pool
        self.layers = nn.ModuleList()
        inputs, reduction, dilation = c.stem_width, 1 if c.stem == "3x3" else 4, 1
        strides = []
        for stage, (depth, width) in enumerate(zip(c.depths, c.widths, strict=True)):
            before, stride = dilation, 1 if stage == 0 else 2
            if stage >= len(c.depths) - c.dilated_stages:
                stride, dilation = 1, 2 * dilation
            blocks = []
            for i in range(depth):
                # The first block of a dilated stage keeps the dilation of the stage before it, as in torchvision.
                shape = (stride, before) if i == 0 else (1, dilation)
                blocks.append(block(inputs, width, *shape))
                inputs = c.expansion * width
            self.layers.append(nn.Sequential(*blocks))
            reduction *= stride
            strides.append(reduction)
        self.strides = tuple(strides)
        self.channels = tuple(c.expansion * width for width in c.widths)
        self.head = nn.Linear(inputs, c.num_classes)
        initialise_convolutions(self)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The map that leaves each stage, finest first, each (B, channels, H / stride, W / stride)."""
        check_images(images, self.config.in_channels)
        x = self.pool(self.activation(self.bn1(self.conv1(images))))
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        blocks = [(f"layers.{s}.{i}.",) for s, depth in enumerate(self.config.depths) for i in range(depth)]
        return [("conv1.", "bn1."), *blocks, ("head.",)]


def plain_stem(config: ResidualConfig) -> tuple[nn.Module, nn.Module]:
    """The convolution of the stem and the pool behind its norm, as `config.stem` says."""
    if config.stem == "3x3":
        return conv(config.in_channels, config.stem_width, 3), nn.Identity()
    return conv(config.in_channels, config.stem_width, 7, stride=2), nn.MaxPool2d(3, stride=2, padding=1)


def deep_stem(
    in_channels: int, widths: tuple[int, int, int], activation: Activation = nn.ReLU
) -> tuple[nn.Module, nn.Module]:
    """Three 3x3 convolutions of these widths in the place of one of 7x7, the first with a stride; and the pool.

    The norm behind the last is the network's.
    """
    first, second, last = widths
    convolutions = nn.Sequential(
        conv(in_channels, first, 3, stride=2), nn.BatchNorm2d(first), activation(inplace=True),
        conv(first, second, 3), nn.BatchNorm2d(second), activation(inplace=True),
        conv(second, last, 3),
    )  # fmt: skip
    return convolutions, nn.MaxPool2d(3, stride=2, padding=1)


def projection(inputs: int, outputs: int, stride: int, kernel: int = 1) -> nn.Module:
    """A shortcut that is a convolution and a norm where the shape changes (option B of ResNet, section 3.3)."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(conv(inputs, outputs, kernel, stride=stride), nn.BatchNorm2d(outputs))
