"""What every super-resolution network offers to its task, its exports and its tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn


class SuperResolver(nn.Module, ABC):
    """Images (B, channels, h, w) to images `scale` times as high and wide, both in `value_range`.

    One with `enlarged` is given images that were enlarged bicubically before, and returns them at the same size. With
    one channel it learns luma (BT.601, from 16 to 235 as MATLAB has it, over 255); colours are then enlarged
    bicubically.
    """

    channels: ClassVar[int] = 3
    value_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    enlarged: ClassVar[bool] = False
    takes_reference: ClassVar[bool] = False

    @property
    @abstractmethod
    def scales(self) -> tuple[int, ...]:
        """The factors by which it enlarges, the smallest first."""

    @property
    @abstractmethod
    def receptive_radius(self) -> int | None:
        """Pixels of the input on each side that a pixel of the output depends on; None: all that there are."""

    def upscale(self, images: Tensor, scale: int) -> Tensor:
        """Images (B, C, h, w) enlarged by one of `scales`. Raises ValueError for another factor."""
        if scale not in self.scales:
            raise ValueError(f"expected a scale of {', '.join(map(str, self.scales))}, got {scale}")
        enlarged: Tensor = self(images)
        return enlarged


def example_at(channels: int, height: int, width: int, count: int, generator: torch.Generator | None) -> Tensor:
    """Images (count, channels, height, width) of normally distributed values."""
    return torch.randn(count, channels, height, width, generator=generator)
