"""Sub-pixel convolution and the residual blocks without norms that super-resolution networks are made of.

A convolution gives r² times the channels, and pixel shuffle lays them out as r x r pixels (Shi et al. 2016,
arXiv:1609.05158). Shapes are (B, C, H, W).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn


class SubPixelConv(nn.Module):
    """(B, C, H, W) → (B, C, rH, rW): a 3x3 convolution to r² C channels, shuffled."""

    def __init__(self, channels: int, factor: int, *, bias: bool):
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(channels, channels * factor**2, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), self.factor)


class ConvResidual(nn.Module):
    """Convolution, ReLU, convolution, times `scale`, added to what came in (Lim et al. 2017, section 3.1)."""

    def __init__(self, channels: int, kernel: int, *, scale: float):
        super().__init__()
        self.scale = scale
        self.conv1 = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.conv2(self.conv1(x).relu())


def factors_of(scale: int) -> tuple[int, ...]:
    """The steps in which a network enlarges: 3 at once, powers of two by doubling. ValueError for other scales."""
    if scale == 3:
        return (3,)
    if scale < 2 or scale & (scale - 1):
        raise ValueError(f"scale is {scale}; expected 3 or a power of two from 2 on")
    return (2,) * (scale.bit_length() - 1)


def radius_of(before: int, factors: Iterable[int], after: int) -> int:
    """Low-resolution pixels on each side that a pixel of the output depends on.

    `before` of convolutions at low resolution, one for the 3x3 convolution of each step, which sees the pixels before
    it is enlarged by its factor, and `after` of convolutions at high resolution.
    """
    reach = after
    for factor in reversed(list(factors)):
        reach = -(-reach // factor) + 1
    return before + reach
