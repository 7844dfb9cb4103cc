"""PolyNet: a pursuit of structural diversity in very deep networks (Zhang et al. 2016, arXiv:1611.05725).

A residual block gives (I + F) x. Here blocks are polynomials of Inception blocks (section 3.1): poly-3 is
I + F + F² + F³ with the same convolutions in every order, 2-way is I + F + G. The plan around them is that of
Inception-ResNet-v2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.vision.polynet_names import cadene_names
from orchard.models.vision.pooled import PooledClassifier
from orchard.nn.checks import check_images
from orchard.nn.conv import initialise_convolutions, initialise_linears
from orchard.nn.stochastic_depth import StochasticDepth

Conv = tuple[int, int | tuple[int, int]]  # channels and kernel of a step that keeps the size

# The branches of the Inception blocks of stages A, B and C, whose maps are 35, 17 and 8 pixels at 299
BRANCHES: tuple[tuple[tuple[Conv, ...], ...], ...] = (
    (((32, 1), (48, 3), (64, 3)), ((32, 1), (32, 3)), ((32, 1),)),
    (((128, 1), (160, (1, 7)), (192, (7, 1))), ((192, 1),)),
    (((192, 1), (224, (1, 3)), (256, (3, 1))), ((192, 1),)),
)
WIDTHS = (384, 1152, 2048)  # channels between the blocks of each stage


@dataclass(frozen=True)
class PolyNetConfig:
    depths: tuple[int, int, int] = (10, 20, 10)  # blocks of each stage: 2-way in A, poly-3 and 2-way in turn in B and C
    last_scale: float = 0.7  # what the terms of the last block count; 1 in the first, and linearly between
    stem: str = "valid"  # "valid": an eighth of the size; "3x3": half, for small pictures
    width: float = 1.0  # share of the published channels, in sixteenths
    dropout: float = 0.2
    image_size: int = 331
    in_channels: int = 3
    num_classes: int = 1000

    @property
    def least(self) -> int:
        """The smallest side of a picture that leaves something behind the second reduction."""
        return 75 if self.stem == "valid" else 13

    def __post_init__(self) -> None:
        if self.stem not in ("valid", "3x3"):
            raise ValueError(f"stem is one of valid, 3x3, got {self.stem!r}")
        if self.width <= 0 or 16 * self.width % 1:
            raise ValueError(f"width is a multiple of 1/16 above 0, got {self.width}")
        if not 0 < self.last_scale <= 1:
            raise ValueError(f"last_scale is above 0 and at most 1, got {self.last_scale}")
        if self.image_size < self.least:
            raise ValueError(f"image_size is at least {self.least}, got {self.image_size}")

    def channels(self, published: int) -> int:
        return int(published * self.width)


class ConvNorm(nn.Module):
    """Convolution, norm, and a ReLU unless `rectify` is false. Every order of a polynomial has its own norm."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, valid: bool = False,
        orders: int = 1, rectify: bool = True,
    ):  # fmt: skip
        super().__init__()
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (0, 0) if valid else (rows // 2, columns // 2)
        self.conv = nn.Conv2d(inputs, outputs, (rows, columns), stride, padding, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(orders))
        self.rectify = rectify

    def forward(self, x: Tensor, order: int = 0) -> Tensor:
        x = self.norms[order](self.conv(x))
        return F.relu(x, inplace=True) if self.rectify else x


class Chain(nn.ModuleList):
    """Convolutions one behind the other, each with the norm of the order."""

    def forward(self, x: Tensor, order: int) -> Tensor:
        for step in self:
            x = step(x, order)
        return x


class Inception(nn.Module):
    """Branches of convolutions, joined by a 1x1 convolution that each order has for itself; the shape stays."""

    def __init__(self, c: PolyNetConfig, stage: int, orders: int):
        super().__init__()
        width, joined = c.channels(WIDTHS[stage]), 0
        self.branches = nn.ModuleList()
        for steps in BRANCHES[stage]:
            inputs, chain = width, Chain()
            for published, kernel in steps:
                outputs = c.channels(published)
                chain.append(ConvNorm(inputs, outputs, kernel, orders=orders))
                inputs = outputs
            self.branches.append(chain)
            joined += inputs
        self.project = nn.ModuleList(ConvNorm(joined, width, 1, rectify=False) for _ in range(orders))

    def forward(self, x: Tensor, order: int) -> Tensor:
        given = torch.cat([chain(x, order) for chain in self.branches], 1)
        joined: Tensor = self.project[order](given)
        return joined


class PolyInception(nn.Module):
    """I plus the powers of each of its Inception blocks, rectified: poly-3 has one block, 2-way has two of one order.

    A term counts `scale`. In training it is kept that often instead, for each picture by itself (stochastic paths).
    """

    def __init__(self, c: PolyNetConfig, stage: int, ways: int, orders: int, scale: float):
        super().__init__()
        self.blocks = nn.ModuleList(Inception(c, stage, orders) for _ in range(ways))
        self.orders, self.scale = orders, scale
        self.drop = StochasticDepth(1 - scale)  # divides what it keeps by `scale`

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for block in self.blocks:
            y = x
            for order in range(self.orders):
                y = block(y, order)
                out = out + self.scale * self.drop(y)
                y = F.relu(y)
        return F.relu(out)


class Concat(nn.ModuleList):
    """Branches that read the same map; what they give stands one behind the other along the channels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], 1)


def make_stem(c: PolyNetConfig) -> nn.Sequential:
    """That of Inception-v4 (figure 3 there) with narrower last convolutions; 331 → 39."""
    w = c.channels
    if c.stem == "3x3":
        return nn.Sequential(ConvNorm(c.in_channels, w(64), 3), ConvNorm(w(64), w(384), 3, stride=2))
    a, b = w(64) + w(96), 2 * w(96)
    long = (ConvNorm(w(64), w(64), (7, 1)), ConvNorm(w(64), w(64), (1, 7)))
    return nn.Sequential(
        ConvNorm(c.in_channels, w(32), 3, stride=2, valid=True),
        ConvNorm(w(32), w(32), 3, valid=True),
        ConvNorm(w(32), w(64), 3),
        Concat([nn.MaxPool2d(3, stride=2), ConvNorm(w(64), w(96), 3, stride=2, valid=True)]),
        Concat([
            nn.Sequential(ConvNorm(a, w(64), 1), ConvNorm(w(64), w(96), 3, valid=True)),
            nn.Sequential(ConvNorm(a, w(64), 1), *long, ConvNorm(w(64), w(96), 3, valid=True)),
        ]),
        Concat([nn.MaxPool2d(3, stride=2), ConvNorm(b, w(192), 3, stride=2, valid=True)]),
    )  # fmt: skip


def make_reductions(c: PolyNetConfig) -> tuple[Concat, Concat]:
    """From stage A to B and from B to C; each halves the size without a border."""
    w = c.channels
    a, b = w(384), w(1152)

    def shrink(inputs: int, outputs: int) -> ConvNorm:
        return ConvNorm(w(inputs), w(outputs), 3, stride=2, valid=True)

    first = Concat([
        nn.Sequential(ConvNorm(a, w(256), 1), ConvNorm(w(256), w(256), 3), shrink(256, 384)),
        shrink(384, 384),
        nn.MaxPool2d(3, stride=2),
    ])  # fmt: skip
    second = Concat([
        nn.Sequential(ConvNorm(b, w(256), 1), ConvNorm(w(256), w(256), 3), shrink(256, 256)),
        nn.Sequential(ConvNorm(b, w(256), 1), shrink(256, 256)),
        nn.Sequential(ConvNorm(b, w(256), 1), shrink(256, 384)),
        nn.MaxPool2d(3, stride=2),
    ])  # fmt: skip
    return first, second


class PolyNet(PooledClassifier):
    """Pictures (B, C, H, W) of at least 75 pixels, normalised, to logits (B, num_classes)."""

    def __init__(self, config: PolyNetConfig):
        super().__init__()
        self.config = c = config
        self.channels = tuple(c.channels(width) for width in WIDTHS)
        self.strides = (8, 16, 32) if c.stem == "valid" else (2, 4, 8)
        self.stem = make_stem(c)
        last = sum(c.depths) - 1
        # The published scales have six decimals.
        scales = iter([round(1 - (1 - c.last_scale) * i / last, 6) for i in range(last + 1)])
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(c.depths):
            ways = [(1, 3) if stage > 0 and i % 2 == 0 else (2, 1) for i in range(depth)]
            self.stages.append(nn.Sequential(*[PolyInception(c, stage, *way, next(scales)) for way in ways]))
        self.reductions = nn.ModuleList(make_reductions(c))
        self.dropout = nn.Dropout(c.dropout)
        self.head = nn.Linear(self.channels[-1], c.num_classes)
        initialise_convolutions(self)
        initialise_linears(self, std=0.01)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The map that leaves each stage, finest first, each (B, channels, about H / stride, about W / stride)."""
        check_images(images, self.config.in_channels, least=self.config.least)
        maps = [self.stages[0](self.stem(images))]
        for reduction, stage in zip(self.reductions, self.stages[1:], strict=True):
            maps.append(stage(reduction(maps[-1])))
        return maps

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        groups: list[tuple[str, ...]] = [("stem.",)]
        for stage, depth in enumerate(self.config.depths):
            if stage:
                groups.append((f"reductions.{stage - 1}.",))
            groups += [(f"stages.{stage}.{i}.",) for i in range(depth)]
        return [*groups, ("head.",)]


VARIANTS = {
    "polynet": PolyNetConfig(),
    "polynet_nano": PolyNetConfig((1, 2, 2), 1.0, "3x3", 1 / 16, 0.0, image_size=32, in_channels=1, num_classes=10),
}

LANDMARK = Landmark(model=PolyNet, variants=VARIANTS, names={"cadene": cadene_names})
