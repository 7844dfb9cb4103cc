"""Images resized, mirrored, cropped and recoloured, their boxes and masks with them.

What is done to an image depends on its own row of random numbers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from orchard.data.boxes.contracts import Objects
from orchard.data.boxes.object_masks import Masks
from orchard.data.boxes.settings import BoxAugmentSettings

# Which of a record's numbers is used for what; the first is its place in the epoch's order.
FLIP, SIDE, WHETHER_CROP, CROP_FROM, CROP_W, CROP_H, CROP_X, CROP_Y, BRIGHT, CONTRAST, SATURATION = range(1, 12)
WHETHER_MOSAIC, MIDDLE_X, MIDDLE_Y = range(12, 15)
OTHERS = slice(15, 18)
SHIFTS = slice(18, 26)  # of each of four images, across and down
LEAST_SIDE, LEAST_SHARE = 2.0, 0.1  # of what is left of a box in a mosaic: pixels a side, and share of its area


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


def resize(image: Tensor, objects: Objects, sizing: Sizing) -> tuple[Tensor, Objects]:
    """An image (C, H, W) uint8 and its boxes at the size of `sizing`."""
    height, width = image.shape[1:]
    new = sizing.of(height, width)
    if new == (height, width):
        return image, objects
    scale = np.array([new[1] / width, new[0] / height] * 2, np.float32)
    edges = np.array([new[1], new[0]] * 2, np.float32)
    boxes = np.minimum(objects.boxes * scale, edges)  # the product may round to just past them
    return V.resize(image, list(new), antialias=True), objects.moved(boxes, lambda masks: masks.resized(*new))


def vary(
    image: Tensor, objects: Objects, settings: BoxAugmentSettings, numbers: np.ndarray, sizing: Sizing
) -> tuple[Tensor, Objects]:
    """What training sees of an image (C, H, W) uint8, by its numbers (COLUMNS,) in [0, 1), in DETR's order of steps."""
    if settings.flip and numbers[FLIP] < 0.5:
        image, objects = mirror(image, objects)
    if numbers[WHETHER_CROP] < settings.crop:
        image, objects = resize(image, objects, Sizing(_choose(settings.crop_from, numbers[CROP_FROM]), None))
        image, objects = crop(image, objects, settings.crop_sides, numbers)
    side = _choose(settings.sides, numbers[SIDE])
    image, objects = resize(image, objects, sizing if side is None else Sizing(side, sizing.longest))
    if settings.color:
        bright, contrast, saturation = (1 + settings.color * (2 * numbers[[BRIGHT, CONTRAST, SATURATION]] - 1)).tolist()
        image = V.adjust_contrast(V.adjust_brightness(image, bright), contrast)
        image = V.adjust_saturation(image, saturation) if len(image) == 3 else image
    return image, objects


def others_of(numbers: np.ndarray, count: int) -> list[int]:
    """The three records among `count` that go into a mosaic with the one that these numbers are of."""
    return [int(number * count) for number in numbers[OTHERS]]


def mosaic(pieces: Sequence[tuple[Tensor, Objects]], numbers: np.ndarray) -> tuple[Tensor, Objects]:
    """Four images (C, H, W) uint8 in one of the first's size (Bochkovskiy et al. 2020, arXiv:2004.10934, section 3.4).

    They meet at a point within the middle half of the image. Each is resized to cover its quarter, its aspect kept, and
    what sticks out on one side or both is cut off; so are the boxes, and those are gone of which little is left.
    """
    first, _ = pieces[0]
    _, height, width = first.shape
    across, down = (
        int(side * (1 + 2 * number) / 4) for side, number in ((width, numbers[MIDDLE_X]), (height, numbers[MIDDLE_Y]))
    )
    across, down = max(across, 1), max(down, 1)
    image = first.new_zeros(first.shape)
    found: list[Objects] = []
    quarters = [(x, y) for y in ((0, down), (down, height)) for x in ((0, across), (across, width))]
    for (piece, objects), (x, y), shift in zip(pieces, quarters, numbers[SHIFTS].reshape(4, 2), strict=True):
        w, h = x[1] - x[0], y[1] - y[0]
        scale = max(w / piece.shape[2], h / piece.shape[1])
        size = max(round(piece.shape[1] * scale), h), max(round(piece.shape[2] * scale), w)
        left, top = int(shift[0] * (size[1] - w + 1)), int(shift[1] * (size[0] - h + 1))
        resized = V.resize(piece, list(size), antialias=True)
        image[:, y[0] : y[1], x[0] : x[1]] = resized[:, top : top + h, left : left + w]
        stretch = np.array([size[1] / piece.shape[2], size[0] / piece.shape[1]] * 2, np.float32)
        boxes = objects.boxes * stretch - np.array([left, top] * 2, np.float32)
        cut = np.clip(boxes, 0, np.array([w, h] * 2, np.float32))
        kept = ((cut[:, 2:] - cut[:, :2]) >= LEAST_SIDE).all(1) & (_areas(cut) >= LEAST_SHARE * _areas(boxes))
        corner = np.array([x[0], y[0]] * 2, np.float32)

        def placed(masks: Masks, size=size, left=left, top=top, x=x, y=y, w=w, h=h) -> Masks:  # type: ignore[no-untyped-def]
            return masks.resized(*size).moved(left, top, h, w).moved(-x[0], -y[0], height, width)

        found.append(objects.moved(cut + corner, placed).only(kept))
    return image, Objects.joined(found)


def _areas(boxes: np.ndarray) -> np.ndarray:
    sides: np.ndarray = boxes[:, 2:] - boxes[:, :2]
    return sides.prod(1)


def mirror(image: Tensor, objects: Objects) -> tuple[Tensor, Objects]:
    """Left and right exchanged."""
    left, top, right, bottom = objects.boxes.T
    width = image.shape[2]
    boxes = np.stack([width - right, top, width - left, bottom], 1)
    return image.flip(2), objects.moved(boxes, Masks.mirrored)


def crop(image: Tensor, objects: Objects, sides: tuple[int, int], numbers: np.ndarray) -> tuple[Tensor, Objects]:
    """A rectangle whose sides lie between `sides`, or are the image's own where that is smaller.

    What is left of each object's box stays with it; objects with nothing left are gone.
    """
    height, width = image.shape[1:]
    w, h = (_between(sides, side, number) for side, number in ((width, numbers[CROP_W]), (height, numbers[CROP_H])))
    x, y = int(numbers[CROP_X] * (width - w + 1)), int(numbers[CROP_Y] * (height - h + 1))
    boxes = np.clip(objects.boxes - np.array([x, y, x, y], np.float32), 0, np.array([w, h, w, h], np.float32))
    kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return image[:, y : y + h, x : x + w], objects.moved(boxes, lambda masks: masks.moved(x, y, h, w)).only(kept)


def _between(sides: tuple[int, int], side: int, number: float) -> int:
    low, high = min(sides[0], side), min(sides[1], side)
    return low + int(number * (high - low + 1))


def _choose(sides: tuple[int, ...], number: float) -> int | None:
    return sides[int(number * len(sides))] if sides else None
