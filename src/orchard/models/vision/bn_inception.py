"""BN-Inception, or Inception v2: the network of batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167).

GoogLeNet with a norm behind every convolution, two 3x3 kernels in place of each 5x5, and blocks that halve the
picture themselves (appendix, figure 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.models import Landmark, Rule
from orchard.models.vision.pooled import PooledClassifier
from orchard.nn.branches import Conv, Fork, Step, Wiring
from orchard.nn.checks import check_images
from orchard.nn.conv import initialise_convolutions, initialise_linears

BLOCKS = {  # figure 5: 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, projection behind the pool
    "3a": (64, 64, 64, 64, 96, 32),
    "3b": (64, 64, 96, 64, 96, 64),
    "3c": (0, 128, 160, 64, 96, 0),  # without the 1x1 and the projection: a block of stride 2
    "4a": (224, 64, 96, 96, 128, 128),
    "4b": (192, 96, 128, 96, 128, 128),
    "4c": (160, 128, 160, 128, 160, 128),
    "4d": (96, 128, 192, 160, 192, 128),
    "4e": (0, 128, 192, 192, 256, 0),
    "5a": (352, 192, 320, 160, 224, 128),
    "5b": (352, 192, 320, 192, 224, 128),  # pools by maximum, all others of stride 1 by average
}


@dataclass(frozen=True)
class BNInceptionConfig:
    stem: str = "7x7"  # "7x7": an eighth of the size; "3x3": half, for small pictures
    width: float = 1.0  # share of the published channels
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000

    @property
    def least(self) -> int:
        """The smallest side of a picture that leaves something behind the pools of the stem."""
        return 7 if self.stem == "7x7" else 2

    def __post_init__(self) -> None:
        if self.stem not in ("7x7", "3x3"):
            raise ValueError(f"stem is one of 7x7, 3x3, got {self.stem!r}")
        if self.image_size < self.least:
            raise ValueError(f"image_size is at least {self.least}, got {self.image_size}")


class HalvingPool(nn.Module):
    """The largest of 3x3 at every second pixel, (B, C, H, W) → (B, C, ceil(H / 2), ceil(W / 2)).

    On even maps this is the pool with `ceil_mode` of the authors' framework; on odd ones that would fall short of the
    convolutions beside it.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, (0, 2, 0, 2)), 3, stride=2)  # zeros: what comes in has been rectified


def block(name: str) -> Fork:
    one, reduce3, three, reduce_double, double, pool = BLOCKS[name]
    stride = 1 if one else 2
    threes: tuple[list[Step], list[Step]] = (
        [Conv(reduce3, 1), Conv(three, 3, stride)],
        [Conv(reduce_double, 1), Conv(double, 3), Conv(double, 3, stride)],
    )
    if not one:
        return Fork((*threes, [HalvingPool()]))
    kind = nn.MaxPool2d if name == "5b" else nn.AvgPool2d
    return Fork(([Conv(one, 1)], *threes, [kind(3, stride=1, padding=1), Conv(pool, 1)]))


class BNInception(PooledClassifier):
    """Pictures (B, C, H, W) of at least 7 pixels, normalised, to logits (B, num_classes)."""

    def __init__(self, config: BNInceptionConfig):
        super().__init__()
        self.config = c = config
        pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        stem: dict[str, Step] = {"conv1": Conv(64, 7, 2), "pool1": pool, "reduce": Conv(64, 1), "conv2": Conv(192, 3)}
        if c.stem == "7x7":
            stem["pool2"] = pool
        else:
            stem["conv1"] = Conv(64, 3)
        steps = stem | {name: block(name) for name in BLOCKS}
        chain = Wiring(bias=True, eps=1e-5, width=c.width).chain(c.in_channels, *steps.values())
        self.layers = nn.ModuleDict(dict(zip(steps, chain, strict=True)))
        self.taps = ("conv1", "conv2", "3b", "4d", "5b")
        self.channels = tuple(self.layers[name].outputs for name in self.taps)
        self.strides = (2, 4, 8, 16, 32) if c.stem == "7x7" else (1, 2, 2, 4, 8)
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

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the head, for layer-wise learning rates."""
        return [*[(f"layers.{name}.",) for name in self.layers], ("head.",)]


VARIANTS = {
    "bninception": BNInceptionConfig(),
    "bninception_nano": BNInceptionConfig(stem="3x3", width=0.15, image_size=32, in_channels=1, num_classes=10),
}


def pretrainedmodels_names(config: BNInceptionConfig) -> list[Rule | tuple[str, str]]:
    """The names of the Caffe network in the package pretrainedmodels, whose pictures are BGR: ours are RGB."""
    rows: list[Rule | tuple[str, str]] = [
        Rule(
            "layers.conv1.conv.weight",
            ("conv1_7x7_s2.weight",),
            join=lambda kernel: kernel.flip(1),
            split=lambda kernel: (kernel.flip(1),),
        ),
        ("head.{}", "last_linear.{}"),
    ]
    convolutions = {"conv1": "conv1_7x7_s2", "reduce": "conv2_3x3_reduce", "conv2": "conv2_3x3"}
    for name, (one, *_) in BLOCKS.items():
        branches = [["3x3_reduce", "3x3"], ["double_3x3_reduce", "double_3x3_1", "double_3x3_2"]]
        if one:
            branches = [["1x1"], *branches, ["pool", "pool_proj"]]
        for n, branch in enumerate(branches):
            convolutions |= {f"{name}.{n}.{step}": f"inception_{name}_{theirs}" for step, theirs in enumerate(branch)}
    for ours, theirs in convolutions.items():
        rows += [(f"layers.{ours}.conv.{{}}", f"{theirs}.{{}}"), (f"layers.{ours}.bn.{{}}", f"{theirs}_bn.{{}}")]
    return rows


LANDMARK = Landmark(
    model=BNInception,
    variants=VARIANTS,
    names={"pretrainedmodels": pretrainedmodels_names},
    preprocess={"pretrainedmodels": {"mean": (128 / 255, 117 / 255, 104 / 255), "std": (1 / 255,) * 3}},
)
