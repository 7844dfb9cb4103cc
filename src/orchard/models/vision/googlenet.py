"""GoogLeNet: going deeper with convolutions (Szegedy et al. 2014, arXiv:1409.4842).

Nine blocks in which kernels of three sizes and a pool look at the same map (figure 2b), with 1x1 convolutions that
keep them cheap. Two small classifiers half-way down bring a gradient to the lower layers; prediction leaves them out.
`googlenet` is torchvision's form, `googlenet_paper` the paper's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.nn.branches import Branches, Conv, Wiring
from orchard.nn.checks import check_images
from orchard.nn.conv import initialise_convolutions, initialise_linears
from orchard.nn.fan_in import initialise_by_fan_in

BLOCKS = {  # table 1: 1x1, then 3x3 reduce, 3x3, 5x5 reduce, 5x5, and the projection behind the pool
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


@dataclass(frozen=True)
class GoogLeNetConfig:
    """`form` is "paper" or "torchvision".

    torchvision's has batch norms (eps 0.001) in place of biases and response norms, kernels of 3x3 where the paper
    has 5x5, a pool of 2x2 in place of 3x3 before block 5a, and auxiliary classifiers that average any map to 4x4.
    """

    form: str = "torchvision"
    stem: str = "7x7"  # "7x7": an eighth of the size; "3x3": half, for small pictures
    width: float = 1.0  # share of the published channels
    auxiliaries: bool = True
    dropout: float = 0.4
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000

    @property
    def least(self) -> int:
        """The smallest side of a picture that leaves something behind the last pool, and behind the auxiliary ones."""
        side = 2 if self.form == "torchvision" else 10  # of the map before the third pool
        return 8 * side - 1 if self.stem == "7x7" else 2 * side

    def __post_init__(self) -> None:
        for name, known in (("form", ("torchvision", "paper")), ("stem", ("7x7", "3x3"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.image_size < self.least:
            raise ValueError(f"image_size is at least {self.least}, got {self.image_size}")


def inception(wiring: Wiring, inputs: int, widths: tuple[int, ...], large: int) -> Branches:
    """Figure 2b; `large` is the side of the largest kernel."""
    one, reduce3, three, reduce5, five, pool = widths
    return wiring.branches(
        inputs,
        [Conv(one, 1)],
        [Conv(reduce3, 1), Conv(three, 3)],
        [Conv(reduce5, 1), Conv(five, large)],
        [nn.MaxPool2d(3, stride=1, padding=1), Conv(pool, 1)],
    )


class Auxiliary(nn.Module):
    """A classifier on a map inside the network (section 5), (B, inputs, H, W) → (B, num_classes)."""

    def __init__(self, wiring: Wiring, inputs: int, num_classes: int, paper: bool):
        super().__init__()
        self.pool = nn.AvgPool2d(5, stride=3) if paper else nn.Identity()  # 14x14 → 4x4
        self.conv = wiring.conv(inputs, Conv(128, 1))
        self.hidden = nn.Linear(wiring.channels(128) * 16, wiring.channels(1024))
        self.dropout = nn.Dropout(0.7)
        self.head = nn.Linear(wiring.channels(1024), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.adaptive_avg_pool2d(self.pool(x), 4))
        logits: Tensor = self.head(self.dropout(F.relu(self.hidden(x.flatten(1)))))
        return logits


class GoogLeNet(nn.Module):
    """Pictures (B, C, H, W) of at least 15 pixels (79 in the paper's form), normalised, to logits (B, num_classes)."""

    head_name = "head"
    classifier_layers = ("head", "auxiliaries")

    def __init__(self, config: GoogLeNetConfig):
        super().__init__()
        self.config = c = config
        paper = c.form == "paper"
        wiring = Wiring(bias=paper, eps=None if paper else 1e-3, width=c.width)
        kernel, stride = (7, 2) if c.stem == "7x7" else (3, 1)
        self.conv1 = wiring.conv(c.in_channels, Conv(64, kernel, stride))
        self.conv2 = wiring.conv(wiring.channels(64), Conv(64, 1))
        self.conv3 = wiring.conv(wiring.channels(64), Conv(192, 3))
        # As in the authors' Caffe network, where alpha is divided by the five channels of the window
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0) if paper else nn.Identity()
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.pool2 = self.pool if c.stem == "7x7" else nn.Identity()
        self.pool4 = self.pool if paper else nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.blocks = nn.ModuleDict()
        channels = [wiring.channels(64), wiring.channels(192)]
        self.auxiliaries = nn.ModuleList()
        inputs = channels[-1]
        for name, widths in BLOCKS.items():
            self.blocks[name] = block = inception(wiring, inputs, widths, large=5 if paper else 3)
            inputs = block.outputs
            if name in ("3b", "4e", "5b"):
                channels.append(inputs)
            if c.auxiliaries and name in ("4a", "4d"):
                self.auxiliaries.append(Auxiliary(wiring, inputs, c.num_classes, paper))
        self.channels = tuple(channels)
        self.strides = (2, 4, 8, 16, 32) if c.stem == "7x7" else (1, 2, 2, 4, 8)
        self.dropout = nn.Dropout(c.dropout)
        self.head = nn.Linear(inputs, c.num_classes)
        self.auxiliary_weight = 0.3 if c.auxiliaries else 0.0  # of their losses in training (section 5)
        if paper:  # without norms
            initialise_by_fan_in(self, self.head)
        else:
            initialise_convolutions(self)
            initialise_linears(self, std=0.01)

    def _run(self, images: Tensor) -> dict[str, Tensor]:
        """What the first and the third convolution and each block give."""
        check_images(images, self.config.in_channels, least=self.config.least)
        first = self.conv1(images)
        x = self.conv3(self.conv2(self.norm(self.pool(first))))
        maps = {"1": first, "2": self.norm(x)}
        x = self.pool2(maps["2"])
        for name, block in self.blocks.items():
            if name in ("4a", "5a"):
                x = (self.pool if name == "4a" else self.pool4)(x)
            maps[name] = x = block(x)
        return maps

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The last map of each size, finest first, each (B, channels, about H / stride, about W / stride)."""
        maps = self._run(images)
        return [maps[name] for name in ("1", "2", "3b", "4e", "5b")]

    def features(self, images: Tensor) -> Tensor:
        """What block 5b gives, (B, C, h, w)."""
        return self._run(images)["5b"]

    def forward(self, images: Tensor) -> Tensor:
        return self._classify(self.features(images))

    def forward_with_auxiliaries(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The logits, and those of the auxiliary classifiers on 4a and 4d, for training."""
        maps = self._run(images)
        taps = zip(self.auxiliaries, ("4a", "4d"), strict=False)  # without auxiliaries, none
        return self._classify(maps["5b"]), tuple(head(maps[name]) for head, name in taps)

    def _classify(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(x.mean((2, 3))))
        return logits

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        blocks = [(f"blocks.{name}.",) for name in BLOCKS]
        return [("conv1.",), ("conv2.", "conv3."), *blocks, ("head.", "auxiliaries.")]


VARIANTS = {
    "googlenet": GoogLeNetConfig(dropout=0.2),
    "googlenet_paper": GoogLeNetConfig("paper"),
    "googlenet_nano": GoogLeNetConfig(
        stem="3x3", width=0.25, dropout=0.2, image_size=32, in_channels=1, num_classes=10
    ),
}


def torchvision_names(config: GoogLeNetConfig) -> list[tuple[str, str]]:
    if config.form == "paper":
        return []  # torchvision has no such network
    rows = []
    for name in BLOCKS:
        rows.append((f"blocks.{name}.0.0.{{}}", f"inception{name}.branch1.{{}}"))
        rows += [(f"blocks.{name}.{i}.{{}}", f"inception{name}.branch{i + 1}.{{}}") for i in (1, 2, 3)]
    for n in (0, 1):
        for ours, theirs in (("hidden", "fc1"), ("head", "fc2"), ("conv", "conv")):
            rows.append((f"auxiliaries.{n}.{ours}.{{}}", f"aux{n + 1}.{theirs}.{{}}"))
    return [*rows, ("head.{}", "fc.{}"), ("{}", "{}")]


def infer_config(config: Any, source: str, find: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """Whether a checkpoint has the auxiliary classifiers."""
    return {"auxiliaries": find("auxiliaries.0.head.weight") is not None}


LANDMARK = Landmark(
    model=GoogLeNet,
    variants=VARIANTS,
    names={"torchvision": torchvision_names},
    infer_config=infer_config,
    preprocess={"torchvision": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}},
)
