"""What every super-resolution and every restoration network offers to its task, its exports and its tests."""

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

    @property
    def crop(self) -> int | None:
        """Pixels a side of the images that it learns from, where only those are computed as one; None: of any size.

        One with `crop` has `upscale_crops(images, scale)` → images, and its tokens for each (B, T, D).
        """
        return None

    def upscale(self, images: Tensor, scale: int) -> Tensor:
        """Images (B, C, h, w) enlarged by one of `scales`. Raises ValueError for another factor."""
        if scale not in self.scales:
            raise ValueError(f"expected a scale of {', '.join(map(str, self.scales))}, got {scale}")
        enlarged: Tensor = self(images)
        return enlarged


def example_at(channels: int, height: int, width: int, count: int, generator: torch.Generator | None) -> Tensor:
    """Images (count, channels, height, width) of normally distributed values."""
    return torch.randn(count, channels, height, width, generator=generator)


class RestorationNetwork(nn.Module, ABC):
    """Degraded images (B, channels, H, W) to clean ones of the same size, both in `value_range`.

    One with `noise_map` must be told how strong the noise is.
    """

    value_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    @property
    @abstractmethod
    def channels(self) -> int:
        """3: RGB; 1: grey, or one channel after the other of other images."""

    @property
    def noise_map(self) -> bool:
        """Does `restore` need the noise's standard deviation?"""
        return False

    @property
    @abstractmethod
    def receptive_radius(self) -> int | None:
        """Pixels on each side that a pixel of the output depends on; None: all that there are."""

    @property
    def crop(self) -> int | None:
        """Pixels a side of the images that it learns from, where only those are computed as one; None: of any size."""
        return None

    @abstractmethod
    def restore(self, images: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Clean images (B, C, H, W). `sigma` (B,) is the standard deviation of the noise of each, in the units of the
        images; ValueError where the network needs it and it is not given."""
