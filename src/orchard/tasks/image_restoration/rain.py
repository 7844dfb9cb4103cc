"""Streaks of rain, drawn at random over clean images.

A drop falls through several pixels while the shutter is open and covers each for a share of the exposure. For that
share the pixel sees the drop, which is about as bright as the sky, else what lies behind it: (1 - share) image +
share sky, the image formation of Garg and Nayar ("Detection and Removal of Rain from Videos", CVPR 2004, section 3).
Drops are sparse random seeds; those of one image fall along one angle, and the shutter stretches each into a line of
one length. Their lengths and brightness are ours, chosen by eye; there is no mist, and drops do not grow with nearness.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ANGLE = 30.0  # largest, to either side of straight down, degrees
LENGTHS = 8.0, 24.0  # of the streaks of an image, pixels
SHARES = 0.2, 0.8  # of the exposure that a drop covers a pixel, for each drop
SKY = 180.0, 255.0  # levels of 255, for each image
RADIUS = math.ceil(LENGTHS[1] / 2) + 1  # pixels from the middle of a streak that it may reach


def streak(length: Tensor, angle: Tensor) -> Tensor:
    """Lines through the middle of (B, 2 RADIUS + 1, 2 RADIUS + 1), antialiased: one less the distance to the line.

    `length` (B,) is in pixels between the middles of both ends, `angle` (B,) in degrees from straight down to right.
    """
    at = torch.arange(-RADIUS, RADIUS + 1, device=length.device, dtype=length.dtype)
    radians = torch.deg2rad(angle).view(-1, 1, 1)
    across, down = radians.sin(), radians.cos()
    along = at[:, None] * down + at * across
    beyond = (along.abs() - length.view(-1, 1, 1) / 2).clamp(min=0)
    aside = at * down - at[:, None] * across
    return (1 - torch.hypot(beyond, aside)).clamp(min=0)


def covered(seeds: Tensor, lines: Tensor) -> Tensor:
    """The share of the exposure that drops cover each pixel, (B, H, W).

    `seeds` (B, H + 2 RADIUS, W + 2 RADIUS) has each drop's share at the middle of its streak, else 0; `lines` (B, K, K)
    the streak. Where streaks cross, what one leaves is covered by the other.
    """
    opacity = -torch.log1p(-seeds)
    return 1 - torch.exp(-F.conv2d(opacity[None], lines[:, None], groups=len(seeds))[0])


def add_rain(clean: Tensor, percent: Tensor, generator: torch.Generator | None) -> Tensor:
    """Images (B, C, H, W) from 0 to 255 in rain, not rounded; all channels have the same streaks.

    `percent` (B,) of the area is under streaks on the average, counted twice where two cross.
    """
    count, _, height, width = clean.shape

    def drawn(bounds: tuple[float, float], *shape: int) -> Tensor:
        low, high = bounds
        return low + (high - low) * torch.rand(count, *shape, generator=generator, device=clean.device)

    lines = streak(drawn(LENGTHS), drawn((-ANGLE, ANGLE)))
    sky = drawn(SKY).view(-1, 1, 1, 1)
    size = height + 2 * RADIUS, width + 2 * RADIUS  # so that streaks reach in from outside
    chance = percent.to(clean.device) / 100 / lines.sum((1, 2))
    falls = drawn((0.0, 1.0), *size) < chance.view(-1, 1, 1)
    share = covered(falls * drawn(SHARES, *size), lines)[:, None]
    return clean + share * (sky - clean)
