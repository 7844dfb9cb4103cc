"""Images resized, mirrored, cropped and recoloured, their segments with them.

What is done to an image depends on its own row of random numbers only. The steps and their numbers are those of images
with boxes, which are DETR's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from orchard.data.boxes import augment as boxes
from orchard.data.boxes.augment import Sizing
from orchard.data.boxes.settings import BoxAugmentSettings
from orchard.data.masks.augment import resize as resize_image
from orchard.data.masks.augment import resize_mask
from orchard.data.panoptic.contracts import Segments


def vary(
    image: Tensor, segments: Segments, settings: BoxAugmentSettings, numbers: np.ndarray, sizing: Sizing
) -> tuple[Tensor, Segments]:
    """What training sees of an image (C, H, W) uint8, by its numbers (COLUMNS,) in [0, 1), in DETR's order of steps.

    Segments with no pixel left are gone.
    """
    map = segments.map
    if settings.flip and numbers[boxes.FLIP] < 0.5:
        image, map = image.flip(2), map.flip(1)
    if numbers[boxes.WHETHER_CROP] < settings.crop:
        image, map = _resize(image, map, Sizing(_choose(settings.crop_from, numbers[boxes.CROP_FROM]), None))
        rows = _cut(settings.crop_sides, map.shape[0], numbers[boxes.CROP_H], numbers[boxes.CROP_Y])
        columns = _cut(settings.crop_sides, map.shape[1], numbers[boxes.CROP_W], numbers[boxes.CROP_X])
        image, map = image[:, rows, columns], map[rows, columns]
    side = _choose(settings.sides, numbers[boxes.SIDE])
    image, map = _resize(image, map, sizing if side is None else Sizing(side, sizing.longest))
    if settings.color:
        strengths = numbers[[boxes.BRIGHT, boxes.CONTRAST, boxes.SATURATION]]
        bright, contrast, saturation = (1 + settings.color * (2 * strengths - 1)).tolist()
        image = V.adjust_contrast(V.adjust_brightness(image, bright), contrast)
        image = V.adjust_saturation(image, saturation) if len(image) == 3 else image
    return image, replace(segments, map=map).present()


def _resize(image: Tensor, map: Tensor, sizing: Sizing) -> tuple[Tensor, Tensor]:
    size = sizing.of(*map.shape)
    return resize_image(image, size), resize_mask(map, size)


def _cut(sides: tuple[int, int], side: int, length: float, start: float) -> slice:
    """Of a side, a piece whose length lies between `sides`, or is the side's own where that is smaller."""
    low, high = min(sides[0], side), min(sides[1], side)
    cut = low + int(length * (high - low + 1))
    begin = int(start * (side - cut + 1))
    return slice(begin, begin + cut)


def _choose(sides: tuple[int, ...], number: float) -> int | None:
    return sides[int(number * len(sides))] if sides else None
