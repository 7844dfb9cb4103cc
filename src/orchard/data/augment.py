"""How training pictures are varied: a whole batch at a time, from a table of random numbers.

What is done to a picture depends on its own row of numbers only. The parameters are computed in float64 for the whole
global batch, whoever holds which part of it; what is then done to the pixels is elementwise, so a part of a batch comes
out in the same bits as the batch would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.data.batches import ImageBatch
from orchard.data.contracts import AugmentSettings
from orchard.data.preprocess import LUMA
from orchard.data.settings import MixSettings

# Which of a record's numbers is used for what; the first is its place in the epoch's order.
FLIP, ROTATE, ZOOM, SHIFT_X, SHIFT_Y, BRIGHT, CONTRAST, SATURATION, PAD_X, PAD_Y = range(1, 11)
ERASE = slice(11, 16)  # whether, area, aspect, place
CROP = slice(16, 38)  # ten tries of area and aspect, then the place
_PADDING = {"zero": "zeros", "edge": "border", "reflect": "reflection"}
_ASPECTS = (3 / 4, 4 / 3)  # of a resized crop, as in arXiv:1409.4842, section 6
_ERASED_AREA, _ERASED_ASPECTS = (0.02, 1 / 3), (0.3, 1 / 0.3)  # arXiv:1708.04896, section 4.1


@dataclass(frozen=True)
class Variation:
    """What is done to each picture of a batch."""

    mappings: Tensor | None  # (B, 2, 3) from places in the result to places in the picture, both in [-1, 1]
    exact: bool  # the mappings move whole pixels to whole pixels
    colors: Tensor | None  # (B, 3) factors of brightness, contrast, saturation
    erased: tuple[tuple[int, int, int, int, int], ...]  # place in the batch; top, bottom, left, right
    padding: str = "zeros"  # what is outside a picture, as `grid_sample` calls it

    def part(self, begin: int, end: int) -> Variation:
        mappings = None if self.mappings is None else self.mappings[begin:end]
        colors = None if self.colors is None else self.colors[begin:end]
        erased = tuple((i - begin, t, b, le, r) for i, t, b, le, r in self.erased if begin <= i < end)
        return Variation(mappings, self.exact, colors, erased, self.padding)


def plan(settings: AugmentSettings, numbers: np.ndarray, size: tuple[int, int]) -> Variation:
    """From numbers (B, COLUMNS) in [0, 1) to what is done to pictures of `size` (height, width)."""
    colors = None
    if settings.color:
        factors = 1 + settings.color * (2 * numbers[:, [BRIGHT, CONTRAST, SATURATION]] - 1)
        colors = torch.from_numpy(factors.astype(np.float32))
    free = bool(settings.rotate or settings.scale or settings.shift or settings.crop == "resized")
    moved = free or settings.flip or settings.crop == "pad"
    mappings = torch.from_numpy(_mappings(settings, numbers, size).astype(np.float32)) if moved else None
    chosen = np.flatnonzero(numbers[:, ERASE.start] < settings.erase).tolist()
    erased = tuple((place, *_rectangle(numbers[place, ERASE].tolist(), size)) for place in chosen)
    return Variation(mappings, not free, colors, erased, _PADDING[settings.padding])


def _mappings(settings: AugmentSettings, numbers: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(B, 2, 3): mirror, then crop, then turn, zoom and shift about the middle of the picture."""
    rows, columns = size
    count = len(numbers)
    spread = 2 * numbers - 1  # in [-1, 1)
    across, down = np.ones(count), np.ones(count)  # sizes of the crop, as shares of the picture
    x, y = np.zeros(count), np.zeros(count)  # its middle, in [-1, 1]
    if settings.crop == "pad":
        steps = 2 * settings.pad + 1
        x = (np.floor(numbers[:, PAD_X] * steps) - settings.pad) * 2 / columns
        y = (np.floor(numbers[:, PAD_Y] * steps) - settings.pad) * 2 / rows
    elif settings.crop == "resized":
        left, top, right, bottom = resized_crops(numbers[:, CROP], columns, rows, settings.area).T
        across, down = (right - left) / columns, (bottom - top) / rows
        x, y = (left + right) / columns - 1, (top + bottom) / rows - 1
    if settings.flip:
        across = np.where(numbers[:, FLIP] < 0.5, -across, across)
    angle = np.radians(settings.rotate) * spread[:, ROTATE]
    # A zoom of 1 + s is as likely as one of 1 / (1 + s).
    zoom = np.exp(np.log1p(settings.scale) * spread[:, ZOOM])
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    tall = rows / columns  # in pixels the picture is not square, and turns are meant in pixels
    turn = np.stack([np.stack([cos, -sin * tall], 1), np.stack([sin / tall, cos], 1)], 1)  # (B, 2, 2)
    matrix = turn * np.stack([across, down], 1)[:, None, :]
    offset = (turn @ np.stack([x, y], 1)[:, :, None])[:, :, 0] + 2 * settings.shift * spread[:, [SHIFT_X, SHIFT_Y]]
    return np.concatenate([matrix, offset[:, :, None]], 2)


def resized_crops(numbers: np.ndarray, width: int, height: int, area: tuple[float, float]) -> np.ndarray:
    """Random boxes of random aspect in pictures of one size: ten tries to find one that fits, else the middle.

    numbers: (B, 22) in [0, 1). Gives (B, 4) int64: left, top, right, bottom in whole pixels, as the crops of the
    reference pipelines have.
    """
    tries = numbers[:, :20].reshape(-1, 10, 2)
    areas = (area[0] + (area[1] - area[0]) * tries[:, :, 0]) * width * height
    low, high = np.log(_ASPECTS)
    aspects = np.exp(low + (high - low) * tries[:, :, 1])
    across, down = np.round(np.sqrt(areas * aspects)), np.round(np.sqrt(areas / aspects))
    fits = (across >= 1) & (down >= 1) & (across <= width) & (down <= height)
    first = np.arange(len(numbers)), fits.argmax(1)
    w, h = across[first], down[first]
    left, top = np.floor(numbers[:, 20] * (width - w + 1)), np.floor(numbers[:, 21] * (height - h + 1))
    none = ~fits.any(1)
    if none.any():
        aspect = min(max(width / height, _ASPECTS[0]), _ASPECTS[1])
        w[none], h[none] = min(width, max(1, round(height * aspect))), min(height, max(1, round(width / aspect)))
        left[none], top[none] = (width - w[none]) // 2, (height - h[none]) // 2
    return np.stack([left, top, left + w, top + h], 1).astype(np.int64)


def _rectangle(numbers: list[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A rectangle to blank, cut off where it does not fit: top, bottom, left, right."""
    rows, columns = size
    area = (_ERASED_AREA[0] + (_ERASED_AREA[1] - _ERASED_AREA[0]) * numbers[1]) * rows * columns
    low, high = math.log(_ERASED_ASPECTS[0]), math.log(_ERASED_ASPECTS[1])
    aspect = math.exp(low + (high - low) * numbers[2])
    h, w = min(rows, round((area * aspect) ** 0.5)), min(columns, round((area / aspect) ** 0.5))
    top, left = int(numbers[3] * (rows - h + 1)), int(numbers[4] * (columns - w + 1))
    return top, top + h, left, left + w


def vary(pictures: Tensor, variation: Variation) -> Tensor:
    """Move and recolour pictures (B, C, H, W) uint8: the same shape as float32 in [0, 255]; erasing comes later."""
    varied = pictures.float()
    if variation.mappings is not None:
        grid = _grid(variation.mappings, pictures.shape[2], pictures.shape[3])
        mode = "nearest" if variation.exact else "bilinear"
        varied = F.grid_sample(varied, grid, mode, variation.padding, align_corners=False)
    if variation.colors is not None:
        # The middle that contrast turns about is a sum of whole numbers, exact in whatever order it is taken.
        middle = pictures.sum((1, 2, 3)).float().div(pictures[0].numel())[:, None, None, None]
        bright, contrast, saturation = variation.colors[:, :, None, None, None].unbind(1)
        varied = varied.mul_(contrast).add_(middle * (1 - contrast)).mul_(bright)
        if varied.shape[1] == 3:
            grey = varied[:, 0:1] * LUMA[0] + varied[:, 1:2] * LUMA[1] + varied[:, 2:3] * LUMA[2]
            varied = varied.mul_(saturation).add_(grey * (1 - saturation))
        varied = varied.clamp_(0, 255)
    return varied


def erase(images: Tensor, variation: Variation) -> Tensor:
    """Set the chosen rectangles of normalised images to 0, the mean colour."""
    for place, top, bottom, left, right in variation.erased:
        images[place, :, top:bottom, left:right] = 0
    return images


def _grid(mappings: Tensor, rows: int, columns: int) -> Tensor:
    """(B, H, W, 2) places in [-1, 1]; not by matrix product, whose rounding may depend on the size of the batch."""
    x = (torch.arange(columns) * 2 + 1) / columns - 1
    y = (torch.arange(rows) * 2 + 1) / rows - 1
    by_column = mappings[:, :, 0, None] * x  # (B, 2, W)
    by_row = mappings[:, :, 1, None] * y + mappings[:, :, 2, None]  # (B, 2, H)
    return (by_row[:, :, :, None] + by_column[:, :, None]).permute(0, 2, 3, 1)


def mix(batch: ImageBatch, settings: MixSettings, num_classes: int, seed: int, step: int) -> ImageBatch:
    """Mixup (arXiv:1710.09412) or cutmix (arXiv:1905.04899), each half of the time where both are on.

    Neighbours are mixed: 0 with 1, 2 with 3, ... in a batch that is shuffled already; one share for the whole batch,
    drawn from (seed, step), so that a batch dealt out to several processes in even parts is mixed as one would be.
    Labels (B,) become (B, num_classes) float; those of several classes, (B, num_classes) of 0 and 1, are mixed as they
    are.
    """
    generator = np.random.default_rng([seed, step])
    use_cutmix = bool(settings.cutmix) and (not settings.mixup or generator.random() < 0.5)
    alpha = settings.cutmix if use_cutmix else settings.mixup
    if not alpha:
        return batch
    share = float(generator.beta(alpha, alpha))
    partner = torch.arange(len(batch)) ^ 1
    partner[partner == len(batch)] = len(batch) - 1  # of an odd batch the last stays alone
    images = batch.images
    if use_cutmix:
        rows, columns = images.shape[2:]
        top, bottom = _side(generator.random(), rows, share)
        left, right = _side(generator.random(), columns, share)
        images = images.clone()
        images[:, :, top:bottom, left:right] = batch.images[partner, :, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (rows * columns)
    else:
        images = images * share + images[partner] * (1 - share)
    labels = F.one_hot(batch.labels, num_classes).float() if batch.labels.ndim == 1 else batch.labels
    labels = labels * share + labels[partner] * (1 - share)
    return ImageBatch(images, labels, batch.indices)


def _side(number: float, length: int, share: float) -> tuple[int, int]:
    """Where the pasted box begins and ends on one side: its middle is anywhere, what hangs over is cut off."""
    half = round(length * (1 - share) ** 0.5) // 2
    middle = int(number * length)
    return max(middle - half, 0), min(middle + half, length)
