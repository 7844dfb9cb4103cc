"""Images mirrored, scaled, cropped and recoloured, their masks with them.

What is done to an image depends on its own row of random numbers only.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.data.masks.contracts import IGNORED
from orchard.data.masks.settings import MaskAugmentSettings
from orchard.data.sizing import Sizing, recolour, resize_image, resize_labels

# Which of a record's numbers is used for what; the first is its place in the epoch's order.
FLIP, SCALE, CROP_X, CROP_Y, BRIGHT, CONTRAST, SATURATION = range(1, 8)


def vary(
    image: Tensor,
    mask: Tensor,
    settings: MaskAugmentSettings,
    numbers: np.ndarray,
    sizing: Sizing,
    crop: tuple[int, int],
    fill: tuple[int, ...],
) -> tuple[Tensor, Tensor]:
    """What training sees of an image (C, H, W) uint8 and its mask (H, W), by its numbers (COLUMNS,) in [0, 1).

    Both have the height and width of `crop`. A smaller image stands in the corner of one of the colour `fill`, which is
    ignored.
    """
    if settings.flip and numbers[FLIP] < 0.5:
        image, mask = image.flip(2), mask.flip(1)
    low, high = settings.scale
    scale = low * (high / low) ** float(numbers[SCALE])  # as often twice as large as half as large
    height, width = (max(round(side * scale), 1) for side in sizing.of(*image.shape[1:]))
    image, mask = resize_image(image, (height, width)), resize_labels(mask, (height, width))
    top, left = (
        int(number * (max(side - wanted, 0) + 1))
        for number, side, wanted in zip(numbers[[CROP_Y, CROP_X]], (height, width), crop, strict=True)
    )
    image, mask = (one[..., top : top + crop[0], left : left + crop[1]] for one in (image, mask))
    if settings.color:
        image = recolour(image, settings.color, numbers[[BRIGHT, CONTRAST, SATURATION]])
    return pad(image, mask, crop, fill)


def pad(image: Tensor, mask: Tensor, size: tuple[int, int], fill: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Both at least of this height and width: ignored pixels of the colour `fill` below and on the right."""
    down, right = (max(wanted - side, 0) for wanted, side in zip(size, mask.shape, strict=True))
    if not down and not right:
        return image, mask
    padding = (0, right, 0, down)
    whole = [F.pad(channel, padding, value=level) for channel, level in zip(image, fill, strict=True)]
    return torch.stack(whole), F.pad(mask, padding, value=IGNORED)
