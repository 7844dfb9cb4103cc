"""The size, the channels and the colours in which a model sees images that are not cropped to one size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as V

from orchard.data.batches import Padded


@dataclass(frozen=True)
class Sizing:
    """How large a model sees images: the shorter side is `shorter` pixels, the longer at most `longest`.

    Without `shorter` images keep their size. The aspect is kept, and nothing is cut off.
    """

    shorter: int | None
    longest: int | None

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image is resized to, as DETR's code rounds them."""
        if self.shorter is None:
            return height, width
        short, long = min(height, width), max(height, width)
        side = self.shorter
        if self.longest is not None and long * side > self.longest * short:
            side = round(self.longest * short / long)
        side = max(side, 1)
        return (side, max(side * width // height, 1)) if height <= width else (max(side * height // width, 1), side)


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image (C, H, W) uint8 at another height and width."""
    return image if image.shape[1:] == size else V.resize(image, list(size), antialias=True)


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Numbers of pixels (H, W) at another height and width: of each new pixel, the one in its middle."""
    if labels.shape == size:
        return labels
    return V.resize(labels[None], list(size), interpolation=InterpolationMode.NEAREST_EXACT)[0]


def recolour(image: Tensor, strength: float, numbers: np.ndarray) -> Tensor:
    """Another brightness, contrast and, of a colour image, saturation, by three numbers in [0, 1)."""
    bright, contrast, saturation = (1 + strength * (2 * numbers - 1)).tolist()
    image = V.adjust_contrast(V.adjust_brightness(image, bright), contrast)
    return V.adjust_saturation(image, saturation) if len(image) == 3 else image


def with_channels(image: Tensor, channels: int) -> Tensor:
    """An image (C, H, W) as a model takes it: grey or RGB."""
    if len(image) == channels:
        return image
    return V.rgb_to_grayscale(image) if channels == 1 else V.grayscale_to_rgb(image)


def pad(images: list[Tensor]) -> Padded:
    """Images (C, H, W) in one tensor, zeros at the bottom and the right of all but the largest."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    values = images[0].new_zeros(len(images), len(images[0]), height, width)
    mask = torch.zeros(len(images), height, width, dtype=torch.bool)
    for n, image in enumerate(images):
        _, h, w = image.shape
        values[n, :, :h, :w] = image
        mask[n, :h, :w] = True
    return Padded(values, mask)
