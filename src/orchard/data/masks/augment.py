"""Images mirrored, scaled, cropped and recoloured, their masks with them.

What is done to an image depends on its own row of random numbers only.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as V

from orchard.data.boxes.augment import Sizing
from orchard.data.masks.contracts import IGNORED
from orchard.data.masks.settings import MaskAugmentSettings

# Which of a record's numbers is used for what; the first is its place in the epoch's order.
FLIP, SCALE, CROP_X, CROP_Y, BRIGHT, CONTRAST, SATURATION = range(1, 8)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image (C, H, W) uint8 at another height and width."""
    return image if image.shape[1:] == size else V.resize(image, list(size), antialias=True)


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask (H, W) at another height and width: of each new pixel, the class in its middle."""
    if mask.shape == size:
        return mask
    return V.resize(mask[None], list(size), interpolation=InterpolationMode.NEAREST_EXACT)[0]


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
    image, mask = resize(image, (height, width)), resize_mask(mask, (height, width))
    top, left = (
        int(number * (max(side - wanted, 0) + 1))
        for number, side, wanted in zip(numbers[[CROP_Y, CROP_X]], (height, width), crop, strict=True)
    )
    image, mask = (one[..., top : top + crop[0], left : left + crop[1]] for one in (image, mask))
    if settings.color:
        image = recolour(image, settings.color, numbers)
    return pad(image, mask, crop, fill)


def recolour(image: Tensor, strength: float, numbers: np.ndarray) -> Tensor:
    """Another brightness, contrast and, of a colour image, saturation."""
    bright, contrast, saturation = (1 + strength * (2 * numbers[[BRIGHT, CONTRAST, SATURATION]] - 1)).tolist()
    image = V.adjust_contrast(V.adjust_brightness(image, bright), contrast)
    return V.adjust_saturation(image, saturation) if len(image) == 3 else image


def pad(image: Tensor, mask: Tensor, size: tuple[int, int], fill: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Both at least of this height and width: ignored pixels of the colour `fill` below and on the right."""
    down, right = (max(wanted - side, 0) for wanted, side in zip(size, mask.shape, strict=True))
    if not down and not right:
        return image, mask
    padding = (0, right, 0, down)
    whole = [F.pad(channel, padding, value=level) for channel, level in zip(image, fill, strict=True)]
    return torch.stack(whole), F.pad(mask, padding, value=IGNORED)
