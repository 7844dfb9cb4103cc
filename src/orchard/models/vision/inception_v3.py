"""Inception v3 (Szegedy et al. 2015, "Rethinking the Inception Architecture for Computer Vision", arXiv:1512.00567).

Large kernels are written as small ones: 5x5 as two 3x3, 7x7 as 1x7 behind 7x1, 3x3 as 1x3 beside 3x1. The picture
shrinks in blocks with two convolutions and a pool side by side, all with stride 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.nn.branches import Conv, Fork, Step, Wiring
from orchard.nn.checks import check_images
from orchard.nn.conv import initialise_convolutions, initialise_linears


@dataclass(frozen=True)
class InceptionV3Config:
    """`form` is "torchvision", or "fid": the network of 2015 by whose features generated images are judged.

    That one leaves padding out of its averages, and its last block pools by maximum.
    """

    form: str = "torchvision"
    pools: tuple[int, ...] = (32, 64, 64)  # channels behind the pool of each block of figure 5
    sevens: tuple[int, ...] = (128, 160, 160, 192)  # channels of the 1x7 and 7x1 convolutions of each block of figure 6
    last: int = 2  # blocks of figure 7
    stem: str = "valid"  # "valid": figure 3's, an eighth of the size; "3x3": half, for small pictures
    width: float = 1.0  # share of the published channels
    auxiliary: bool = True
    dropout: float = 0.2
    image_size: int = 299
    in_channels: int = 3
    num_classes: int = 1000

    @property
    def least(self) -> int:
        """The smallest side of a picture that leaves something behind the last block."""
        return 75 if self.stem == "valid" else 15

    @property
    def least_in_training(self) -> int:
        """The same for the auxiliary classifier, whose 5x5 kernel needs a map of 17x17."""
        if not self.auxiliary:
            return self.least
        return 299 if self.stem == "valid" else 71

    def __post_init__(self) -> None:
        for name, known in (("form", ("torchvision", "fid")), ("stem", ("valid", "3x3"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.image_size < self.least:
            raise ValueError(f"image_size is at least {self.least}, got {self.image_size}")
        if self.image_size < self.least_in_training:
            needed = f"image_size is at least {self.least_in_training} with an auxiliary classifier"
            raise ValueError(f"{needed}, got {self.image_size}; auxiliary = false leaves it out")


def figure5(pool: nn.Module, pooled: int) -> Fork:
    return Fork((
        [Conv(64, 1)],
        [Conv(48, 1), Conv(64, 5)],  # 5x5 in the authors' code; in the figure two 3x3, as in the next branch
        [Conv(64, 1), Conv(96, 3), Conv(96, 3)],
        [pool, Conv(pooled, 1)],
    ))  # fmt: skip


def figure6(pool: nn.Module, c: int) -> Fork:
    row, column = (1, 7), (7, 1)
    return Fork((
        [Conv(192, 1)],
        [Conv(c, 1), Conv(c, row), Conv(192, column)],
        [Conv(c, 1), Conv(c, column), Conv(c, row), Conv(c, column), Conv(192, row)],
        [pool, Conv(192, 1)],
    ))  # fmt: skip


def figure7(pool: nn.Module) -> Fork:
    wide = Fork(([Conv(384, (1, 3))], [Conv(384, (3, 1))]))
    return Fork(([Conv(320, 1)], [Conv(384, 1), wide], [Conv(448, 1), Conv(384, 3), wide], [pool, Conv(192, 1)]))


def first_reduction(pool: nn.Module) -> Fork:
    """Figure 10, 35x35 → 17x17."""
    return Fork(([Conv(384, 3, 2, 0)], [Conv(64, 1), Conv(96, 3), Conv(96, 3, 2, 0)], [pool]))


def second_reduction(pool: nn.Module) -> Fork:
    """The same idea with a 7x7 before one of the strides, 17x17 → 8x8."""
    sevens = [Conv(192, 1), Conv(192, (1, 7)), Conv(192, (7, 1)), Conv(192, 3, 2, 0)]
    return Fork(([Conv(192, 1), Conv(320, 3, 2, 0)], sevens, [pool]))


def layers_of(c: InceptionV3Config) -> dict[str, Step]:
    """Table 1, under the names of the authors' code: 5b is the second layer of the fifth stage."""
    pool = nn.MaxPool2d(3, stride=2)
    average = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=c.form == "torchvision")
    stems: dict[str, dict[str, Step]] = {
        "valid": {
            "1a": Conv(32, 3, 2, 0), "2a": Conv(32, 3, 1, 0), "2b": Conv(64, 3), "pool1": pool,
            "3b": Conv(80, 1), "4a": Conv(192, 3, 1, 0), "pool2": pool,
        },
        "3x3": {"2b": Conv(64, 3), "4a": Conv(192, 3), "pool2": pool},
    }  # fmt: skip
    layers = stems[c.stem]
    layers |= {f"5{letter}": figure5(average, pooled) for letter, pooled in zip("bcdefgh", c.pools, strict=False)}
    layers["6a"] = first_reduction(pool)
    layers |= {f"6{letter}": figure6(average, narrow) for letter, narrow in zip("bcdefgh", c.sevens, strict=False)}
    layers["7a"] = second_reduction(pool)
    for letter in "bcdefgh"[: c.last]:
        layers[f"7{letter}"] = figure7(average)
    if c.form == "fid":
        layers[f"7{letter}"] = figure7(nn.MaxPool2d(3, stride=1, padding=1))
    return layers


class Auxiliary(nn.Module):
    """The classifier on the last map of 17x17 (section 4), (B, inputs, H, W) → (B, num_classes)."""

    def __init__(self, w: Wiring, inputs: int, num_classes: int):
        super().__init__()
        self.conv0 = w.conv(inputs, Conv(128, 1))
        self.conv1 = w.conv(w.channels(128), Conv(768, 5, 1, 0))
        self.head = nn.Linear(w.channels(768), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(self.conv0(F.avg_pool2d(x, 5, stride=3)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class InceptionV3(nn.Module):
    """Pictures (B, C, H, W) of at least 75 pixels, normalised, to logits (B, num_classes)."""

    head_name = "head"
    classifier_layers = ("head", "auxiliaries")

    def __init__(self, config: InceptionV3Config):
        super().__init__()
        self.config = c = config
        self.judges_as_fid = c.form == "fid"  # see `tasks/unconditional_image_generation/judge.py`
        w = Wiring(bias=False, eps=1e-3, width=c.width)
        steps = layers_of(c)
        chain = w.chain(c.in_channels, *steps.values())
        made: dict[str, Any] = dict(zip(steps, chain, strict=True))
        self.layers = nn.ModuleDict(made)
        ends = {name[0]: name for name in steps}  # the last layer of each stage
        self.taps = ("2b", "4a", ends["5"], ends["6"], ends["7"])
        self.channels = tuple(made[name].outputs for name in self.taps)
        self.strides = (2, 4, 8, 16, 32) if c.stem == "valid" else (1, 1, 2, 4, 8)
        self.auxiliaries = nn.ModuleList([Auxiliary(w, self.channels[3], c.num_classes)] if c.auxiliary else [])
        self.auxiliary_weight = 0.4 if c.auxiliary else 0.0  # of its loss in training, as in the authors' code
        self.dropout = nn.Dropout(c.dropout)
        self.head = nn.Linear(chain.outputs, c.num_classes)
        initialise_convolutions(self)
        initialise_linears(self, std=0.01)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The last map of each size, finest first, each (B, channels, about H / stride, about W / stride)."""
        check_images(images, self.config.in_channels, least=self.config.least)
        x, maps = images, []
        for name, layer in self.layers.items():
            x = layer(x)
            if name in self.taps:
                maps.append(x)
        return maps

    def features(self, images: Tensor) -> Tensor:
        """The map of the last block, (B, C, h, w); 8x8 at the published size."""
        return self.feature_maps(images)[-1]

    def forward(self, images: Tensor) -> Tensor:
        return self._classify(self.features(images))

    def forward_with_auxiliaries(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The logits, and those of the auxiliary classifier, for training; pictures of at least 299 pixels."""
        check_images(images, self.config.in_channels, least=self.config.least_in_training)
        maps = self.feature_maps(images)
        return self._classify(maps[-1]), tuple(auxiliary(maps[3]) for auxiliary in self.auxiliaries)

    def _classify(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(x.mean((2, 3))))
        return logits

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [*[(f"layers.{name}.",) for name in self.layers], ("head.", "auxiliaries.")]


VARIANTS = {
    "inception_v3": InceptionV3Config(),
    "inception_v3_fid": InceptionV3Config("fid", auxiliary=False, num_classes=1008),
    "inception_v3_nano": InceptionV3Config(
        pools=(32,), sevens=(128,), last=1, stem="3x3", width=0.2, auxiliary=False, image_size=32, in_channels=1,
        num_classes=10,
    ),
}  # fmt: skip

# Each branch of a block by the authors' name for it and the number of its convolutions; none: it is not counted
FIGURE5 = {"branch1x1": 0, "branch5x5": 2, "branch3x3dbl": 3, "branch_pool": 0}
FIGURE6 = {"branch1x1": 0, "branch7x7": 3, "branch7x7dbl": 5, "branch_pool": 0}
FIGURE7 = {"branch1x1": 0, "branch3x3": 1, "branch3x3dbl": 2, "branch_pool": 0}
FIRST = {"branch3x3": 0, "branch3x3dbl": 3}
SECOND = {"branch3x3": 2, "branch7x7x3": 4}


def torchvision_names(config: InceptionV3Config) -> list[tuple[str, str]]:
    """The names of torchvision, which timm kept."""
    if config.stem != "valid" or config.form == "fid":
        return []  # torchvision has no such network
    return names_of(config)


def fid_names(config: InceptionV3Config) -> list[tuple[str, str]]:
    """Those of pytorch-fid's file pt_inception-2015-12-05, which are torchvision's."""
    return names_of(config) if config.form == "fid" else []


def names_of(config: InceptionV3Config) -> list[tuple[str, str]]:
    rows = [("head.{}", "fc.{}"), ("auxiliaries.0.head.{}", "AuxLogits.fc.{}"), ("auxiliaries.0.{}", "AuxLogits.{}")]
    for name in layers_of(config):
        if name[0] in "1234":
            kernel = "1x1" if name == "3b" else "3x3"
            rows.append((f"layers.{name}.{{}}", f"Conv2d_{name}_{kernel}.{{}}"))
        elif name[0] in "567":
            blocks = {"5": FIGURE5, "6": FIGURE6, "7": FIGURE7, "6a": FIRST, "7a": SECOND}
            rows += block_names(name, blocks.get(name) or blocks[name[0]])
    return rows


def block_names(name: str, branches: dict[str, int]) -> list[tuple[str, str]]:
    rows = []
    for place, (branch, count) in enumerate(branches.items()):
        ours, theirs = f"layers.{name}.{place}", f"Mixed_{name}.{branch}"
        if not count:
            rows.append((f"{ours}.{int(branch == 'branch_pool')}.{{}}", f"{theirs}.{{}}"))
        rows += [(f"{ours}.{step}.{{}}", f"{theirs}_{step + 1}.{{}}") for step in range(count)]
        if branches is FIGURE7 and count:  # the fork behind them
            rows += [(f"{ours}.{count}.{i}.0.{{}}", f"{theirs}_{count + 1}{'ab'[i]}.{{}}") for i in (0, 1)]
    return rows


def infer_config(config: Any, source: str, find: Callable[[str], Tensor | None]) -> dict[str, Any]:
    """Whether a checkpoint has the auxiliary classifier."""
    return {"auxiliary": find("auxiliaries.0.head.weight") is not None}


LANDMARK = Landmark(
    model=InceptionV3,
    variants=VARIANTS,
    names={"torchvision": torchvision_names, "timm": torchvision_names, "pytorch-fid": fid_names},
    infer_config=infer_config,
    preprocess={
        "": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
        "pytorch-fid": {"crop": 1.0, "resize": "stretch"},  # images as they are, of whatever shape
    },
)
