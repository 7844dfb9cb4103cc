"""EDSR: residual blocks without norms, and pixels made at the end (Lim et al. 2017, arXiv:1707.02921).

The mean of the training images is subtracted, residual blocks of two convolutions run at low resolution with one skip
around all of them, sub-pixel convolutions enlarge, and the mean is added. Wide networks multiply each residual by 0.1
(section 3.3). Values are those of 8-bit pixels, from 0 to 255, as in the official code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from orchard.models import Landmark
from orchard.models.restoration.contract import SuperResolver, example_at
from orchard.nn.checks import check_images
from orchard.nn.sub_pixel import ConvResidual, SubPixelConv, factors_of, radius_of

MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K's training images, RGB
RANGE = 255.0
STANDARD = 48  # pixels a side of the patches at low resolution (section 4.2)


@dataclass(frozen=True)
class EDSRConfig:
    scale: int = 4
    blocks: int = 16
    width: int = 64
    residual_scale: float = 1.0

    def __post_init__(self) -> None:
        factors_of(self.scale)


class MeanShift(nn.Conv2d):
    """Adds `sign` times the mean to RGB: a 1x1 convolution that does not learn, as official files hold it."""

    def __init__(self, sign: int):
        super().__init__(3, 3, 1)
        with torch.no_grad():
            self.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
            assert self.bias is not None
            self.bias.copy_(sign * RANGE * torch.tensor(MEAN))
        self.requires_grad_(False)


class EDSR(SuperResolver):
    """RGB (B, 3, h, w) to (B, 3, scale h, scale w), both in [0, 255]."""

    value_range = (0.0, RANGE)

    def __init__(self, config: EDSRConfig):
        super().__init__()
        self.config = c = config
        self.sub_mean = MeanShift(-1)
        self.head = nn.Conv2d(3, c.width, 3, padding=1)
        self.blocks = nn.Sequential(*(ConvResidual(c.width, 3, scale=c.residual_scale) for _ in range(c.blocks)))
        self.last = nn.Conv2d(c.width, c.width, 3, padding=1)
        self.upsample = nn.Sequential(*(SubPixelConv(c.width, factor, bias=True) for factor in factors_of(c.scale)))
        self.tail = nn.Conv2d(c.width, 3, 3, padding=1)
        self.add_mean = MeanShift(1)

    @property
    def scales(self) -> tuple[int, ...]:
        return (self.config.scale,)

    @property
    def receptive_radius(self) -> int:
        return radius_of(2 + 2 * self.config.blocks, factors_of(self.config.scale), 1)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, 3)
        x = self.head(self.sub_mean(images))
        x = x + self.last(self.blocks(x))
        return self.add_mean(self.tail(self.upsample(x)))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Name prefixes of the parameters from the input to the output."""
        blocks = [(f"blocks.{n}.",) for n in range(self.config.blocks)]
        return [("sub_mean.", "head."), *blocks, ("last.", "upsample."), ("tail.", "add_mean.")]


def example(config: Any, count: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    return {"images": example_at(3, STANDARD, STANDARD, count, generator)}


def official_names(config: EDSRConfig) -> list[tuple[str, str]]:
    """The names of sanghyun-son/EDSR-PyTorch."""
    upsampling = [(f"upsample.{n}.conv.{{}}", f"tail.0.{2 * n}.{{}}") for n, _ in enumerate(factors_of(config.scale))]
    return [*shared_names(config.blocks), *upsampling, ("tail.{}", "tail.1.{}")]


def shared_names(blocks: int) -> list[tuple[str, str]]:
    """Those that EDSR and MDSR have in common."""
    return [
        ("sub_mean.{}", "sub_mean.{}"),
        ("add_mean.{}", "add_mean.{}"),
        ("head.{}", "head.0.{}"),
        ("blocks.{}.conv1.{}", "body.{}.body.0.{}"),
        ("blocks.{}.conv2.{}", "body.{}.body.2.{}"),
        ("last.{}", f"body.{blocks}.{{}}"),
    ]


VARIANTS = {
    "edsr_nano": EDSRConfig(blocks=4, width=32),
    **{f"edsr_baseline_x{scale}": EDSRConfig(scale=scale) for scale in (2, 3, 4)},
    **{f"edsr_x{scale}": EDSRConfig(scale, blocks=32, width=256, residual_scale=0.1) for scale in (2, 3, 4)},
}
LANDMARK = Landmark(model=EDSR, variants=VARIANTS, names={"official": official_names}, example=example)
