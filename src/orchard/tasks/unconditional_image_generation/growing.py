"""Pairs that grow: how far they are at each step of a training, and the real images that they are shown then.

Karras et al. 2017 (arXiv:1710.10196, section 2). Such a pair offers `sides`, `grow_to(level, alpha)`, `level`, `alpha`
and `read_growth()`. A finished one is as any other.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.data.batches import ImageBatch


def grows(model: nn.Module) -> bool:
    """Is it a pair that may not have its full size yet?"""
    return hasattr(model, "grow_to")


@dataclass(frozen=True)
class Schedule:
    """The growth of a training, which follows from the number of the step alone, so that a resumed one is exact.

    Each side has `phase_images` images; in the first half of them its layers are faded in, but for the first side's.
    """

    sides: tuple[int, ...]
    phase_images: int
    batch_size: int

    def at(self, step: int) -> tuple[int, float]:
        """The level and alpha of a step, counted from 0."""
        level, images = divmod(step * self.batch_size, self.phase_images)
        if level == 0:
            return 0, 1.0
        if level >= len(self.sides):
            return len(self.sides) - 1, 1.0
        return level, min(1.0, 2 * images / self.phase_images)

    @property
    def finished(self) -> int:
        """The first step at which the pair has its full size, with nothing mixed in."""
        images = (len(self.sides) - 1) * self.phase_images + self.phase_images / 2
        return -int(-images // self.batch_size)

    def stage(self, pair: Any, batch: ImageBatch, step: int) -> ImageBatch:
        """The batch as a step's level sees it, to which the pair is grown."""
        pair.grow_to(*self.at(step))
        return dataclasses.replace(batch, images=reduced(batch.images, pair))

    def describe(self) -> str:
        sides = ", ".join(map(str, self.sides))
        return f"grows over {sides} pixels, {self.phase_images:,} images each: full size from step {self.finished + 1}"


def reduced(images: Tensor, pair: Any) -> Tensor:
    """Real images (B, C, S, S) of the side that the pair works at, mixed with the side before as its own are."""
    side = pair.sides[pair.level]
    small = F.avg_pool2d(images, images.shape[2] // side)
    if pair.level == 0 or pair.alpha == 1:
        return small
    before = F.interpolate(F.avg_pool2d(small, 2), scale_factor=2.0, mode="nearest")
    return before.lerp(small, pair.alpha)


def full_size(images: Tensor, pair: Any) -> Tensor:
    """Images of a pair at their full side, each pixel several times where it has not grown so far."""
    size = pair.config.image_size
    return images if images.shape[2] == size else F.interpolate(images, (size, size), mode="nearest")
