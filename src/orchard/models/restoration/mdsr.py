"""MDSR: one network for several scales (Lim et al. 2017, arXiv:1707.02921, section 3.4).

EDSR's residual blocks are shared. Before them every scale has two residual blocks of 5x5 convolutions, behind them its
own sub-pixel convolutions; a training step is of one scale, and moves what that one uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.restoration.contract import SuperResolver
from orchard.models.restoration.edsr import RANGE, MeanShift, example, shared_names
from orchard.nn.checks import check_images
from orchard.nn.sub_pixel import ConvResidual, SubPixelConv, factors_of, radius_of


@dataclass(frozen=True)
class MDSRConfig:
    scales: tuple[int, ...] = (2, 3, 4)
    blocks: int = 16
    width: int = 64

    def __post_init__(self) -> None:
        for scale in self.scales:
            factors_of(scale)
        if list(self.scales) != sorted(set(self.scales)) or not self.scales:
            raise ValueError(f"scales are {self.scales}; expected each once, the smallest first")


class MDSR(SuperResolver):
    """RGB (B, 3, h, w) to one image for each scale s, (B, 3, s h, s w), all in [0, 255]."""

    value_range = (0.0, RANGE)

    def __init__(self, config: MDSRConfig):
        super().__init__()
        self.config = c = config
        self.sub_mean = MeanShift(-1)
        self.head = nn.Conv2d(3, c.width, 3, padding=1)
        self.before = nn.ModuleList(
            nn.Sequential(*(ConvResidual(c.width, 5, scale=1.0) for _ in range(2))) for _ in c.scales
        )
        self.blocks = nn.Sequential(*(ConvResidual(c.width, 3, scale=1.0) for _ in range(c.blocks)))
        self.last = nn.Conv2d(c.width, c.width, 3, padding=1)
        self.upsample = nn.ModuleList(
            nn.Sequential(*(SubPixelConv(c.width, factor, bias=True) for factor in factors_of(scale)))
            for scale in c.scales
        )
        self.tail = nn.Conv2d(c.width, 3, 3, padding=1)
        self.add_mean = MeanShift(1)

    @property
    def scales(self) -> tuple[int, ...]:
        return self.config.scales

    @property
    def receptive_radius(self) -> int:
        before = 1 + 2 * 2 * 2 + 2 * self.config.blocks + 1  # head, two blocks of radius 2, the others, last
        return max(radius_of(before, factors_of(scale), 1) for scale in self.scales)

    def upscale(self, images: Tensor, scale: int) -> Tensor:
        check_images(images, 3)
        if scale not in self.scales:
            raise ValueError(f"expected a scale of {', '.join(map(str, self.scales))}, got {scale}")
        place = self.scales.index(scale)
        x = self.before[place](self.head(self.sub_mean(images)))
        x = x + self.last(self.blocks(x))
        return cast(Tensor, self.add_mean(self.tail(self.upsample[place](x))))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.upscale(images, scale) for scale in self.scales)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output."""
        blocks = [(f"blocks.{n}.",) for n in range(self.config.blocks)]
        return [("sub_mean.", "head.", "before."), *blocks, ("last.", "upsample."), ("tail.", "add_mean.")]


def official_names(config: MDSRConfig) -> list[tuple[str, str]]:
    """The names of sanghyun-son/EDSR-PyTorch."""
    upsampling = [
        (f"upsample.{place}.{n}.conv.{{}}", f"upsample.{place}.{2 * n}.{{}}")
        for place, scale in enumerate(config.scales)
        for n, _ in enumerate(factors_of(scale))
    ]
    return [
        *shared_names(config.blocks),
        ("before.{}.{}.conv1.{}", "pre_process.{}.{}.body.0.{}"),
        ("before.{}.{}.conv2.{}", "pre_process.{}.{}.body.2.{}"),
        *upsampling,
        ("tail.{}", "tail.0.{}"),
    ]


VARIANTS = {
    "mdsr_nano": MDSRConfig(blocks=2, width=16),
    "mdsr_baseline": MDSRConfig(),
    "mdsr": MDSRConfig(blocks=80),
}
LANDMARK = Landmark(model=MDSR, variants=VARIANTS, names={"official": official_names}, example=example)
