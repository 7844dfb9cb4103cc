"""Four images with boxes put together to one.

Which, and how, depends on the row of random numbers of the first of them only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from orchard.data.boxes.contracts import Objects
from orchard.data.boxes.object_masks import Masks

# Which of a record's numbers is used for what, after those that every annotated image has (`data/annotated.py`).
WHETHER_MOSAIC, MIDDLE_X, MIDDLE_Y = range(12, 15)
OTHERS = slice(15, 18)
SHIFTS = slice(18, 26)  # of each of four images, across and down
LEAST_SIDE, LEAST_SHARE = 2.0, 0.1  # of what is left of a box in a mosaic: pixels a side, and share of its area


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
