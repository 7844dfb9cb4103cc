"""How training pictures are varied: a whole batch at a time, from a table of random numbers.

What is done to a picture depends on its own row of numbers only. The parameters are computed in float64 for the whole
global batch, whoever holds which part of it; what is then done to the pixels is elementwise, so a part of a batch comes
out in the same bits as the batch would.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.data.contracts import AugmentSettings
from orchard.data.preprocess import LUMA, Box
from orchard.tasks.image_classification import ImageBatch

# Which of a record's numbers is used for what; the first is its place in the epoch's order.
FLIP, ROTATE, ZOOM, SHIFT_X, SHIFT_Y, BRIGHT, CONTRAST, SATURATION, PAD_X, PAD_Y = range(1, 11)
ERASE = slice(11, 16)  # whether, area, aspect, place
CROP = slice(16, 38)  # ten tries of area and aspect, then the place
_ASPECTS = (3 / 4, 4 / 3)  # of a resized crop, as in arXiv:1409.4842, section 6
_ERASED_AREA, _ERASED_ASPECTS = (0.02, 1 / 3), (0.3, 1 / 0.3)  # arXiv:1708.04896, section 4.1


@dataclass(frozen=True)
class Variation:
    """What is done to each picture of a batch."""

    mappings: Tensor | None  # (B, 2, 3) from places in the result to places in the picture, both in [-1, 1]
    exact: bool  # the mappings move whole pixels to whole pixels
    colors: Tensor | None  # (B, 3) factors of brightness, contrast, saturation
    erased: tuple[tuple[int, int, int, int] | None, ...]  # top, bottom, left, right

    def part(self, begin: int, end: int) -> Variation:
        mappings = None if self.mappings is None else self.mappings[begin:end]
        colors = None if self.colors is None else self.colors[begin:end]
        return Variation(mappings, self.exact, colors, self.erased[begin:end])


def plan(settings: AugmentSettings, numbers: np.ndarray, size: tuple[int, int]) -> Variation:
    """From numbers (B, COLUMNS) in [0, 1) to what is done to pictures of `size` (height, width)."""
    colors = None
    if settings.color:
        factors = 1 + settings.color * (2 * numbers[:, [BRIGHT, CONTRAST, SATURATION]] - 1)
        colors = torch.from_numpy(factors.astype(np.float32))
    free = bool(settings.rotate or settings.scale or settings.shift or settings.crop == "resized")
    moved = free or settings.flip or settings.crop == "pad"
    mappings = torch.from_numpy(_mappings(settings, numbers, size).astype(np.float32)) if moved else None
    erased = tuple(_rectangle(row, size) if row[0] < settings.erase else None for row in numbers[:, ERASE])
    return Variation(mappings, not free, colors, erased)


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
        left, top, right, bottom = np.array(
            [resized_crop(row[CROP], columns, rows, settings.area) for row in numbers]
        ).T
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


def resized_crop(numbers: np.ndarray, width: int, height: int, area: tuple[float, float]) -> Box:
    """A random box of random aspect in a picture: ten tries to find one that fits, else the largest in the middle.

    numbers: (22,) in [0, 1). The box has whole pixels, as the crops of the reference pipelines have.
    """
    tries = numbers[:20].reshape(10, 2)
    areas = (area[0] + (area[1] - area[0]) * tries[:, 0]) * width * height
    low, high = np.log(_ASPECTS)
    aspects = np.exp(low + (high - low) * tries[:, 1])
    across, down = np.round(np.sqrt(areas * aspects)), np.round(np.sqrt(areas / aspects))
    fits = (across >= 1) & (down >= 1) & (across <= width) & (down <= height)
    if fits.any():
        first = int(fits.argmax())
        w, h = int(across[first]), int(down[first])
        left, top = int(numbers[20] * (width - w + 1)), int(numbers[21] * (height - h + 1))
        return left, top, left + w, top + h
    aspect = min(max(width / height, _ASPECTS[0]), _ASPECTS[1])
    w, h = min(width, max(1, round(height * aspect))), min(height, max(1, round(width / aspect)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _rectangle(numbers: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A rectangle to blank, cut off where it does not fit: top, bottom, left, right."""
    rows, columns = size
    area = (_ERASED_AREA[0] + (_ERASED_AREA[1] - _ERASED_AREA[0]) * numbers[1]) * rows * columns
    low, high = np.log(_ERASED_ASPECTS)
    aspect = np.exp(low + (high - low) * numbers[2])
    h, w = min(rows, round((area * aspect) ** 0.5)), min(columns, round((area / aspect) ** 0.5))
    top, left = int(numbers[3] * (rows - h + 1)), int(numbers[4] * (columns - w + 1))
    return top, top + h, left, left + w


def vary(pictures: Tensor, variation: Variation) -> Tensor:
    """Move and recolour pictures (B, C, H, W) uint8: the same shape as float32 in [0, 255]; erasing comes later."""
    varied = pictures.float()
    if variation.mappings is not None:
        grid = _grid(variation.mappings, pictures.shape[2], pictures.shape[3])
        varied = F.grid_sample(varied, grid, "nearest" if variation.exact else "bilinear", "zeros", align_corners=False)
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
    for image, box in zip(images, variation.erased, strict=True):
        if box is not None:
            image[:, box[0] : box[1], box[2] : box[3]] = 0
    return images


def _grid(mappings: Tensor, rows: int, columns: int) -> Tensor:
    """(B, H, W, 2) places in [-1, 1]; not by matrix product, whose rounding may depend on the size of the batch."""
    x = (torch.arange(columns) * 2 + 1) / columns - 1
    y = (torch.arange(rows) * 2 + 1) / rows - 1
    by_column = mappings[:, None, :, 0] * x[None, :, None]  # (B, W, 2)
    by_row = mappings[:, None, :, 1] * y[None, :, None] + mappings[:, None, :, 2]  # (B, H, 2)
    return by_row[:, :, None] + by_column[:, None]


def mix(batch: ImageBatch, settings: AugmentSettings, num_classes: int, seed: int, step: int) -> ImageBatch:
    """Mixup (arXiv:1710.09412) or cutmix (arXiv:1905.04899), each half of the time where both are on.

    Neighbours are mixed: 0 with 1, 2 with 3, ... in a batch that is shuffled already; one share for the whole batch,
    drawn from (seed, step), so that a batch dealt out to several processes in even parts is mixed as one would be.
    Labels become (B, num_classes) float.
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
    labels = F.one_hot(batch.labels, num_classes).float()
    labels = labels * share + labels[partner] * (1 - share)
    return ImageBatch(images, labels, batch.indices)


def _side(number: float, length: int, share: float) -> tuple[int, int]:
    """Where the pasted box begins and ends on one side: its middle is anywhere, what hangs over is cut off."""
    half = round(length * (1 - share) ** 0.5) // 2
    middle = int(number * length)
    return max(middle - half, 0), min(middle + half, length)
