"""Inception v4 (Szegedy et al. 2016, arXiv:1602.07261): the Inception network freed from older constraints.

The same three kinds of block as in Inception v3, now all alike within a stage, behind a stem that shrinks the picture
in forks of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.vision.pooled import PooledClassifier
from orchard.nn.branches import Conv, Fork, Step, Wiring
from orchard.nn.checks import check_images
from orchard.nn.conv import initialise_convolutions, initialise_linears


@dataclass(frozen=True)
class InceptionV4Config:
    depths: tuple[int, int, int] = (4, 7, 3)  # blocks A, B and C (figure 9)
    stem: str = "valid"  # "valid": figure 3's, an eighth of the size; "3x3": half, for small pictures
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


ROW, COLUMN = (1, 7), (7, 1)


def shrink() -> nn.Module:
    return nn.MaxPool2d(3, stride=2)


def average() -> nn.Module:
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


def stem(kind: str) -> list[Step]:
    """Figure 3, without padding but for the third and the 7x7 convolutions; 299 → 35."""
    first_fork = Fork(([shrink()], [Conv(96, 3, 2, 0)]))
    if kind == "3x3":
        return [Conv(64, 3), first_fork]
    return [
        Conv(32, 3, 2, 0),
        Conv(32, 3, 1, 0),
        Conv(64, 3),
        first_fork,
        Fork((
            [Conv(64, 1), Conv(96, 3, 1, 0)],
            [Conv(64, 1), Conv(64, ROW), Conv(64, COLUMN), Conv(96, 3, 1, 0)],
        )),
        Fork(([Conv(192, 3, 2, 0)], [shrink()])),
    ]  # fmt: skip


def block_a() -> Fork:
    """Figure 4."""
    return Fork((
        [Conv(96, 1)],
        [Conv(64, 1), Conv(96, 3)],
        [Conv(64, 1), Conv(96, 3), Conv(96, 3)],
        [average(), Conv(96, 1)],
    ))  # fmt: skip


def reduction_a() -> Fork:
    """Figure 7 with the numbers of table 1; 35 → 17."""
    return Fork(([Conv(384, 3, 2, 0)], [Conv(192, 1), Conv(224, 3), Conv(256, 3, 2, 0)], [shrink()]))


def block_b() -> Fork:
    """Figure 5."""
    return Fork((
        [Conv(384, 1)],
        [Conv(192, 1), Conv(224, ROW), Conv(256, COLUMN)],
        [Conv(192, 1), Conv(192, COLUMN), Conv(224, ROW), Conv(224, COLUMN), Conv(256, ROW)],
        [average(), Conv(128, 1)],
    ))  # fmt: skip


def reduction_b() -> Fork:
    """Figure 8; 17 → 8."""
    return Fork((
        [Conv(192, 1), Conv(192, 3, 2, 0)],
        [Conv(256, 1), Conv(256, ROW), Conv(320, COLUMN), Conv(320, 3, 2, 0)],
        [shrink()],
    ))  # fmt: skip


def block_c() -> Fork:
    """Figure 6."""
    wide = Fork(([Conv(256, (1, 3))], [Conv(256, (3, 1))]))
    return Fork((
        [Conv(256, 1)],
        [Conv(384, 1), wide],
        [Conv(384, 1), Conv(448, (3, 1)), Conv(512, (1, 3)), wide],
        [average(), Conv(256, 1)],
    ))  # fmt: skip


class InceptionV4(PooledClassifier):
    """Pictures (B, C, H, W) of at least 75 pixels, normalised, to logits (B, num_classes)."""

    def __init__(self, config: InceptionV4Config):
        super().__init__()
        self.config = c = config
        first = stem(c.stem)
        a, b, last = c.depths
        blocks = [*[block_a()] * a, reduction_a(), *[block_b()] * b, reduction_b(), *[block_c()] * last]
        self.layers = Wiring(bias=False, eps=1e-3, width=c.width).chain(c.in_channels, *first, *blocks)
        end_a, end_b = len(first) + a - 1, len(first) + a + b
        self.taps = (*((2, 3) if c.stem == "valid" else (0,)), end_a, end_b, len(self.layers) - 1)
        self.strides = (2, 4, 8, 16, 32) if c.stem == "valid" else (1, 2, 4, 8)
        self.channels = tuple(self.layers[i].outputs for i in self.taps)
        self.dropout = nn.Dropout(c.dropout)
        self.head = nn.Linear(self.layers.outputs, c.num_classes)
        initialise_convolutions(self)
        initialise_linears(self, std=0.01)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The last map of each size, finest first, each (B, channels, about H / stride, about W / stride)."""
        check_images(images, self.config.in_channels, least=self.config.least)
        x, maps = images, []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i in self.taps:
                maps.append(x)
        return maps

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [*[(f"layers.{i}.",) for i in range(len(self.layers))], ("head.",)]


VARIANTS = {
    "inception_v4": InceptionV4Config(),
    "inception_v4_nano": InceptionV4Config(
        (1, 1, 1), stem="3x3", width=0.15, image_size=32, in_channels=1, num_classes=10
    ),
}


def timm_names(config: InceptionV4Config) -> list[tuple[str, str]]:
    """timm counts the layers alike; within them it has branches, numbered steps, and letters for the forks of C."""
    if config.stem != "valid":
        return []  # timm has no such network
    rows = [("head.{}", "last_linear.{}")]
    rows += [("layers.3.1.0.{}", "features.3.conv.{}"), ("layers.5.0.0.{}", "features.5.conv.{}")]
    a, b, c = config.depths
    blocks = [*range(6, 6 + a), *range(7 + a, 7 + a + b)]
    for i in (4, *blocks, 6 + a, 7 + a + b):
        if i in (*blocks, 6 + a):  # whose first branch is one convolution, without a number
            rows.append((f"layers.{i}.0.0.{{}}", f"features.{i}.branch0.{{}}"))
        rows += [(f"layers.{i}.{n}.{{}}", f"features.{i}.branch{n}.{{}}") for n in range(4)]
    for i in range(8 + a + b, 8 + a + b + c):
        ours, theirs = f"layers.{i}", f"features.{i}"
        rows.append((f"{ours}.0.0.{{}}", f"{theirs}.branch0.{{}}"))
        for n, fork in ((1, 1), (2, 3)):
            rows += [(f"{ours}.{n}.{step}.{{}}", f"{theirs}.branch{n}_{step}.{{}}") for step in range(fork)]
            rows += [(f"{ours}.{n}.{fork}.{k}.0.{{}}", f"{theirs}.branch{n}_{fork}{'ab'[k]}.{{}}") for k in (0, 1)]
        rows.append((f"{ours}.3.{{}}", f"{theirs}.branch3.{{}}"))
    return [*rows, ("layers.{}", "features.{}")]


LANDMARK = Landmark(
    model=InceptionV4,
    variants=VARIANTS,
    names={"timm": timm_names},
    preprocess={"": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic"}},
)
