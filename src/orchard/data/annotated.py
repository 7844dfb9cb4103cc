"""Images with something drawn on them (boxes, masks, segments): how they are varied, and their batches.

What is done to an image depends on its own row of random numbers only.
"""

from __future__ import annotations

from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
from torch import Tensor

from orchard.data.annotated_settings import AnnotatedAugmentSettings
from orchard.data.contracts import Preprocess, RecordSplit
from orchard.data.counter_rng import uniforms
from orchard.data.indexed import IndexedBatches
from orchard.data.sizing import Sizing, recolour, resize_image

# Which of a record's numbers is used for what; the first is its place in the epoch's order.
FLIP, SIDE, WHETHER_CROP, CROP_FROM, CROP_W, CROP_H, CROP_X, CROP_Y, BRIGHT, CONTRAST, SATURATION = range(1, 12)

B = TypeVar("B")
S = TypeVar("S", bound=RecordSplit[Any])
A = TypeVar("A")
D = TypeVar("D", bound="Drawn")


class Drawn(Protocol):
    """What is drawn on an image, and what becomes of it as the image changes. What has nothing left is gone."""

    def mirrored(self, width: int) -> Self:
        """Left and right exchanged on an image of that width."""
        ...

    def cut(self, left: int, top: int, height: int, width: int) -> Self:
        """On the part of the image whose left upper corner is there."""
        ...

    def resized(self, before: tuple[int, int], after: tuple[int, int]) -> Self:
        """On the image at another height and width."""
        ...


def resize(image: Tensor, drawn: D, sizing: Sizing) -> tuple[Tensor, D]:
    """An image (C, H, W) uint8 and what is drawn on it at the size of `sizing`."""
    height, width = image.shape[1:]
    new = sizing.of(height, width)
    return (image, drawn) if new == (height, width) else (resize_image(image, new), drawn.resized((height, width), new))


def vary(
    image: Tensor, drawn: D, settings: AnnotatedAugmentSettings, numbers: np.ndarray, sizing: Sizing
) -> tuple[Tensor, D]:
    """What training sees of an image (C, H, W) uint8, by its numbers (COLUMNS,) in [0, 1), in DETR's order of steps."""
    if settings.flip and numbers[FLIP] < 0.5:
        image, drawn = image.flip(2), drawn.mirrored(image.shape[2])
    if numbers[WHETHER_CROP] < settings.crop:
        image, drawn = resize(image, drawn, Sizing(_choose(settings.crop_from, numbers[CROP_FROM]), None))
        height, width = image.shape[1:]
        top, h = _piece(settings.crop_sides, height, numbers[CROP_H], numbers[CROP_Y])
        left, w = _piece(settings.crop_sides, width, numbers[CROP_W], numbers[CROP_X])
        image, drawn = image[:, top : top + h, left : left + w], drawn.cut(left, top, h, w)
    side = _choose(settings.sides, numbers[SIDE])
    image, drawn = resize(image, drawn, sizing if side is None else Sizing(side, sizing.longest))
    if settings.color:
        image = recolour(image, settings.color, numbers[[BRIGHT, CONTRAST, SATURATION]])
    return image, drawn


def _piece(sides: tuple[int, int], side: int, length: float, start: float) -> tuple[int, int]:
    """Of a side, where a piece begins and how long it is: between `sides`, or the side's own where that is smaller."""
    low, high = min(sides[0], side), min(sides[1], side)
    piece = low + int(length * (high - low + 1))
    return int(start * (side - piece + 1)), piece


def _choose(sides: tuple[int, ...], number: float) -> int | None:
    return sides[int(number * len(sides))] if sides else None


class AnnotatedBatches(IndexedBatches[B], Generic[B, S, A]):
    """Batches of `split`, varied by `augment`, or for evaluation (`augment=None`) one image after the other."""

    def __init__(
        self,
        split: S,
        preprocess: Preprocess,
        sizing: Sizing,
        augment: A | None,
        *,
        batch_size: int = 1,
        seed: int = 0,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ):
        super().__init__(
            len(split), batch_size=batch_size if augment else world, seed=seed, training=augment is not None,
            workers=workers, rank=rank, world=world,
        )  # fmt: skip
        self.split, self.preprocess, self.sizing, self.augment = split, preprocess, sizing, augment

    def taken(self, epoch: int, indices: np.ndarray, part: slice) -> tuple[np.ndarray, np.ndarray]:
        """The records of this process's part of a batch, (N,) int64, and of each the numbers by which it is varied.

        Of a set without end, every epoch of a training has new records.
        """
        mine = indices[part]
        numbers = uniforms(self.seed, epoch, mine)
        return mine + epoch * self.count if self.training and self.split.endless else mine, numbers
