"""Inception-ResNet-v2 (Szegedy et al. 2016, arXiv:1602.07261): Inception blocks that add to what came in.

What a block gives is made as wide as its input by a 1x1 convolution, multiplied by a small number and added
(section 3.3): without the small number, networks of many channels died early in training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.vision.pooled import PooledClassifier
from orchard.nn.branches import Conv, Fork, Step, Wiring
from orchard.nn.checks import check_images
from orchard.nn.conv import initialise_convolutions, initialise_linears


@dataclass(frozen=True)
class InceptionResNetConfig:
    depths: tuple[int, int, int] = (10, 20, 9)  # residual blocks of each size; one without a ReLU ends the last
    scales: tuple[float, float, float] = (0.17, 0.1, 0.2)  # what the blocks' answers are multiplied by
    stem: str = "valid"  # "valid": an eighth of the size; "3x3": half, for small pictures
    width: float = 1.0  # share of the published channels
    dropout: float = 0.2  # the paper keeps 0.8
    image_size: int = 299
    in_channels: int = 3
    num_classes: int = 1000

    @property
    def least(self) -> int:
        """The smallest side of a picture that leaves something behind the second reduction."""
        return 75 if self.stem == "valid" else 15

    def __post_init__(self) -> None:
        if self.stem not in ("valid", "3x3"):
            raise ValueError(f"stem is one of valid, 3x3, got {self.stem!r}")
        if self.image_size < self.least:
            raise ValueError(f"image_size is at least {self.least}, got {self.image_size}")


def stem(kind: str) -> list[Step]:
    """That of Inception v3, and a first block that does not add; 299 → 35."""
    shrink = nn.MaxPool2d(3, stride=2)
    first = Fork((
        [Conv(96, 1)],
        [Conv(48, 1), Conv(64, 5)],
        [Conv(64, 1), Conv(96, 3), Conv(96, 3)],
        [nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False), Conv(64, 1)],
    ))  # fmt: skip
    if kind == "3x3":
        return [Conv(64, 3), Conv(192, 3), shrink, first]
    return [
        *(Conv(32, 3, 2, 0), Conv(32, 3, 1, 0), Conv(64, 3), shrink),
        *(Conv(80, 1), Conv(192, 3, 1, 0), shrink, first),
    ]


# Figures 16, 17 and 19 with the channels of table 1, for maps of 35x35, 17x17 and 8x8
BLOCK35 = Fork(([Conv(32, 1)], [Conv(32, 1), Conv(32, 3)], [Conv(32, 1), Conv(48, 3), Conv(64, 3)]))
BLOCK17 = Fork(([Conv(192, 1)], [Conv(128, 1), Conv(160, (1, 7)), Conv(192, (7, 1))]))
BLOCK8 = Fork(([Conv(192, 1)], [Conv(192, 1), Conv(224, (1, 3)), Conv(256, (3, 1))]))


def reductions() -> tuple[Fork, Fork]:
    """Figures 7 and 18; 35 → 17 → 8."""
    shrink = nn.MaxPool2d(3, stride=2)
    first = Fork(([Conv(384, 3, 2, 0)], [Conv(256, 1), Conv(256, 3), Conv(384, 3, 2, 0)], [shrink]))
    second = Fork((
        [Conv(256, 1), Conv(384, 3, 2, 0)],
        [Conv(256, 1), Conv(288, 3, 2, 0)],
        [Conv(256, 1), Conv(288, 3), Conv(320, 3, 2, 0)],
        [shrink],
    ))  # fmt: skip
    return first, second


class ResidualBlock(nn.Module):
    """x + scale * what the branches say, rectified unless `rectify` is false; the shape stays."""

    def __init__(self, wiring: Wiring, width: int, fork: Fork, scale: float, rectify: bool = True):
        super().__init__()
        self.branches = wiring.branches(width, *fork.branches)
        self.project = nn.Conv2d(self.branches.outputs, width, 1)  # with a bias and without a norm
        self.scale, self.rectify = scale, rectify

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(self.branches(x)) * self.scale + x
        return F.relu(out) if self.rectify else out


class InceptionResNet(PooledClassifier):
    """Pictures (B, C, H, W) of at least 75 pixels, normalised, to logits (B, num_classes)."""

    def __init__(self, config: InceptionResNetConfig):
        super().__init__()
        self.config = c = config
        w = Wiring(bias=False, eps=1e-3, width=c.width)

        def residual(width: int, fork: Fork, stage: int) -> nn.Sequential:
            return nn.Sequential(*[ResidualBlock(w, width, fork, c.scales[stage]) for _ in range(c.depths[stage])])

        first, second = reductions()
        self.stem = w.chain(c.in_channels, *stem(c.stem))
        self.blocks35 = residual(self.stem.outputs, BLOCK35, 0)
        self.reduction1 = w.branches(self.stem.outputs, *first.branches)
        self.blocks17 = residual(self.reduction1.outputs, BLOCK17, 1)
        self.reduction2 = w.branches(self.reduction1.outputs, *second.branches)
        self.blocks8 = residual(self.reduction2.outputs, BLOCK8, 2)
        self.last_block = ResidualBlock(w, self.reduction2.outputs, BLOCK8, scale=1.0, rectify=False)
        self.last_conv = w.conv(self.reduction2.outputs, Conv(1536, 1))
        self.taps = (2, 5) if c.stem == "valid" else (0, 1)  # the stem's convolutions of 64 and 192 channels
        self.strides = (2, 4, 8, 16, 32) if c.stem == "valid" else (1, 1, 2, 4, 8)
        inner = (self.stem.outputs, self.reduction1.outputs, self.last_conv.outputs)
        self.channels = (w.channels(64), w.channels(192), *inner)
        self.dropout = nn.Dropout(c.dropout)
        self.head = nn.Linear(self.last_conv.outputs, c.num_classes)
        initialise_convolutions(self)
        initialise_linears(self, std=0.01)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The last map of each size, finest first, each (B, channels, about H / stride, about W / stride)."""
        check_images(images, self.config.in_channels, least=self.config.least)
        x, maps = images, []
        for i, layer in enumerate(self.stem):
            x = layer(x)
            if i in self.taps:
                maps.append(x)
        maps.append(x := self.blocks35(x))
        maps.append(x := self.blocks17(self.reduction1(x)))
        x = self.last_block(self.blocks8(self.reduction2(x)))
        return [*maps, self.last_conv(x)]

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""

        def blocks(name: str, stage: int) -> list[tuple[str, ...]]:
            return [(f"{name}.{i}.",) for i in range(self.config.depths[stage])]

        return [
            *[(f"stem.{i}.",) for i in range(len(self.stem))],
            *blocks("blocks35", 0), ("reduction1.",), *blocks("blocks17", 1), ("reduction2.",), *blocks("blocks8", 2),
            ("last_block.",), ("last_conv.",), ("head.",),
        ]  # fmt: skip


VARIANTS = {
    "inception_resnet_v2": InceptionResNetConfig(),
    "inception_resnet_v2_nano": InceptionResNetConfig(
        (1, 1, 1), stem="3x3", width=0.15, image_size=32, in_channels=1, num_classes=10
    ),
}


def timm_names(config: InceptionResNetConfig) -> list[tuple[str, str]]:
    if config.stem != "valid":
        return []  # timm has no such network
    rows = [("head.{}", "classif.{}"), ("last_conv.{}", "conv2d_7b.{}")]
    for i, name in {0: "1a", 1: "2a", 2: "2b", 4: "3b", 5: "4a"}.items():
        rows.append((f"stem.{i}.{{}}", f"conv2d_{name}.{{}}"))
    blocks = {
        f"{ours}.{i}": f"{theirs}.{i}"
        for ours, theirs, depth in zip(
            ("blocks35", "blocks17", "blocks8"), ("repeat", "repeat_1", "repeat_2"), config.depths, strict=True
        )
        for i in range(depth)
    }
    for ours, theirs in (*blocks.items(), ("last_block", "block8")):
        rows.append((f"{ours}.project.{{}}", f"{theirs}.conv2d.{{}}"))
        rows.append((f"{ours}.branches.0.0.{{}}", f"{theirs}.branch0.{{}}"))
        rows += [(f"{ours}.branches.{n}.{{}}", f"{theirs}.branch{n}.{{}}") for n in (1, 2)]
    rows += [("stem.7.0.0.{}", "mixed_5b.branch0.{}"), ("reduction1.0.0.{}", "mixed_6a.branch0.{}")]
    for ours, theirs in (("stem.7", "mixed_5b"), ("reduction1", "mixed_6a"), ("reduction2", "mixed_7a")):
        rows += [(f"{ours}.{n}.{{}}", f"{theirs}.branch{n}.{{}}") for n in range(4)]
    return rows


LANDMARK = Landmark(
    model=InceptionResNet,
    variants=VARIANTS,
    names={"timm": timm_names},
    preprocess={"": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "crop": 0.8975, "interpolation": "bicubic"}},
)
