"""Dual path networks (Chen et al. 2017, arXiv:1707.01629).

Each block gives two things: one is added to a residual path, which uses features again, the other put beside a densely
connected path, which finds new ones (figure 2d). Both paths are one tensor here, the residual channels first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark, Rule
from orchard.models.vision.pooled import PooledClassifier
from orchard.nn.checks import check_images
from orchard.nn.conv import conv, initialise_convolutions

EPS = 1e-3  # of every norm, as in the authors' code


@dataclass(frozen=True)
class DPNConfig:
    depths: tuple[int, ...]  # blocks in each stage; every stage after the first halves the picture
    growths: tuple[int, ...]  # channels that each block of a stage adds to the dense path
    inner: int = 96  # channels inside the blocks of the first stage; twice as many in each that follows
    groups: int = 32  # of the 3x3 convolutions
    residual: int = 256  # channels of the residual path in the first stage; twice as many in each that follows
    stem: str = "7x7"  # "7x7" and "small", a 3x3: stride 2 and a max pool, a quarter of the size; "3x3": the size stays
    stem_width: int = 64
    split: bool = False  # whether both paths have a last convolution of their own ("b" in the name)
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.growths):
            raise ValueError(f"depths and growths name the same stages, got {len(self.depths)} and {len(self.growths)}")
        if self.stem not in ("7x7", "small", "3x3"):
            raise ValueError(f"stem is one of 7x7, small, 3x3, got {self.stem!r}")
        if self.inner % self.groups:
            raise ValueError(f"inner is divisible by groups, got {self.inner} and {self.groups}")


class PreActConv(nn.Module):
    """Norm, ReLU, convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs, eps=EPS)
        self.conv = conv(inputs, outputs, kernel, stride=stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.relu(self.bn(x), inplace=True))
        return out


class SplitConv(nn.Module):
    """Norm, ReLU and two 1x1 convolutions side by side; as one tensor what each of them gives."""

    def __init__(self, inputs: int, outputs: tuple[int, int]):
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs, eps=EPS)
        self.convs = nn.ModuleList(conv(inputs, width, 1) for width in outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(x), inplace=True)
        return torch.cat([layer(x) for layer in self.convs], 1)


class DualPathBlock(nn.Module):
    """1x1, grouped 3x3, 1x1: (B, inputs, H, W) → (B, residual + dense + growth, H / stride, W / stride).

    The first block of a stage brings both paths to its shape by a convolution, to twice the growth of dense channels.
    """

    def __init__(
        self, inputs: int, inner: int, residual: int, growth: int, *, groups: int, stride: int, first: bool, split: bool
    ):
        super().__init__()
        self.residual = residual
        self.shortcut = PreActConv(inputs, residual + 2 * growth, 1, stride) if first else None
        self.conv1 = PreActConv(inputs, inner, 1)
        self.conv2 = PreActConv(inner, inner, 3, stride, groups)
        self.conv3 = SplitConv(inner, (residual, growth)) if split else PreActConv(inner, residual + growth, 1)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv3(self.conv2(self.conv1(x)))
        old = x if self.shortcut is None else self.shortcut(x)
        n = self.residual
        return torch.cat([old[:, :n] + new[:, :n], old[:, n:], new[:, n:]], 1)


class DPN(PooledClassifier):
    """Pictures (B, C, H, W) of any size, normalised, to logits (B, num_classes)."""

    def __init__(self, config: DPNConfig):
        super().__init__()
        self.config = c = config
        same = c.stem == "3x3"
        self.stem = conv(c.in_channels, c.stem_width, 7 if c.stem == "7x7" else 3, stride=1 if same else 2)
        self.norm0 = nn.BatchNorm2d(c.stem_width, eps=EPS)
        self.pool = nn.Identity() if same else nn.MaxPool2d(3, stride=2, padding=1)
        self.layers = nn.ModuleList()
        inputs, channels = c.stem_width, []
        for stage, (depth, growth) in enumerate(zip(c.depths, c.growths, strict=True)):
            residual, inner = c.residual << stage, c.inner << stage
            blocks = []
            for i in range(depth):
                stride = 2 if stage and not i else 1
                blocks.append(
                    DualPathBlock(
                        inputs, inner, residual, growth, groups=c.groups, stride=stride, first=not i, split=c.split
                    )
                )
                inputs = residual + (3 + i) * growth
            self.layers.append(nn.Sequential(*blocks))
            channels.append(inputs)
        self.channels = tuple(channels)
        self.strides = tuple((1 if same else 4) << stage for stage in range(len(c.depths)))
        self.norm = nn.BatchNorm2d(inputs, eps=EPS)
        self.head = nn.Linear(inputs, c.num_classes)
        initialise_convolutions(self)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The map that leaves each stage, finest first, each (B, channels, H / stride, W / stride).

        The last one has the final norm and ReLU behind it; the others are as the next block takes them.
        """
        check_images(images, self.config.in_channels)
        x = self.pool(F.relu(self.norm0(self.stem(images)), inplace=True))
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        maps[-1] = F.relu(self.norm(x), inplace=True)
        return maps

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        blocks = [(f"layers.{s}.{i}.",) for s, depth in enumerate(self.config.depths) for i in range(depth)]
        return [("stem.", "norm0."), *blocks, ("norm.",), ("head.",)]


def small(split: bool) -> DPNConfig:
    return DPNConfig((3, 4, 12, 3), (16, 32, 32, 64), 128, 32, 64, "small", 10, split)


VARIANTS = {
    "dpn68": small(split=False),
    "dpn68b": small(split=True),
    "dpn92": DPNConfig((3, 4, 20, 3), (16, 32, 24, 128)),
    "dpn98": DPNConfig((3, 6, 20, 3), (16, 32, 32, 128), 160, 40, stem_width=96),
    "dpn131": DPNConfig((4, 8, 28, 3), (16, 32, 32, 128), 160, 40, stem_width=128),
    "dpn107": DPNConfig((4, 8, 20, 3), (20, 64, 64, 128), 200, 50, stem_width=128),
    "dpn_nano": DPNConfig((1, 2, 2), (4, 8, 16), 16, 4, 16, "3x3", 16, image_size=32, in_channels=1, num_classes=10),
}


def cadene_names(config: DPNConfig, head: str = "last_linear") -> list[Rule | tuple[str, str]]:
    """Blocks are counted from one, stages from two; the head is a 1x1 convolution over the pooled map."""
    rows: list[Rule | tuple[str, str]] = [
        ("stem.{}", "features.conv1_1.conv.{}"),
        ("norm0.{}", "features.conv1_1.bn.{}"),
    ]
    for stage, depth in enumerate(config.depths):
        for i in range(depth):
            ours, theirs = f"layers.{stage}.{i}", f"features.conv{stage + 2}_{i + 1}"
            if config.split:
                rows += [(f"{ours}.conv3.convs.{n}.{{}}", f"{theirs}.c1x1_c{n + 1}.{{}}") for n in (0, 1)]
            parts = {"shortcut": f"w_s{2 if stage else 1}", "conv1": "a", "conv3": "c"}
            rows += [(f"{ours}.{part}.{{}}", f"{theirs}.c1x1_{name}.{{}}") for part, name in parts.items()]
            rows.append((f"{ours}.conv2.{{}}", f"{theirs}.c3x3_b.{{}}"))
    return [
        *rows,
        ("norm.{}", f"features.conv{len(config.depths) + 1}_bn_ac.bn.{{}}"),
        Rule("head.weight", (f"{head}.weight",), lambda w: w.flatten(1), lambda w: (w[:, :, None, None],)),
        ("head.bias", f"{head}.bias"),
    ]


def timm_names(config: DPNConfig) -> list[Rule | tuple[str, str]]:
    return cadene_names(config, head="classifier")


# (pixel - mean) times 0.0167, which is not ImageNet's usual way
PREPROCESS = {"mean": (124 / 255, 117 / 255, 104 / 255), "std": (1 / (0.0167 * 255),) * 3, "interpolation": "bicubic"}

LANDMARK = Landmark(
    model=DPN,
    variants=VARIANTS,
    names={"timm": timm_names, "cadene": cadene_names},
    preprocess={"timm": PREPROCESS, "cadene": PREPROCESS},
)
