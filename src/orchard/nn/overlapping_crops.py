"""A network of square images of one size at work on larger ones: overlapping crops, blended where they meet.

Crops stand a quarter of their side apart. A pixel is the mean of the crops that have it in their middle half; along the
edges, where there is none, it is that of the outermost crop. As the sides of an image are no multiples of the step, one
more row and column of crops end at the lower and right edge, and the result changes to them halfway through what they
share with the last of the others (Chen et al. 2020, arXiv:2012.00364, and its official code). As in that code, the
first quarter of the upper left crop's rows is taken from that crop alone.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

AT_ONCE = 64  # crops


def crop_weights(length: int, side: int, scale: int) -> tuple[list[int], Tensor]:
    """Where crops of `side` pixels begin along `length` pixels, and what each counts at the pixels of the result,
    (crops, length scale), which sums to one at each."""
    step = side // 4
    last = (length - side) // step * step
    starts = list(range(0, last + 1, step))
    weights = torch.zeros(len(starts) + 1, length * scale)
    for row, start in enumerate(starts):
        weights[row, (start + step) * scale : (start + side - step) * scale] = 1
    weights[0, : step * scale] = 1
    seam = (last + side) * scale - (2 * side + last - length) * scale // 2
    weights[:, seam:] = 0
    weights[-1, seam:] = 1
    return [*starts, length - side], weights / weights.sum(0)


def by_crops(network: Callable[[Tensor], Tensor], images: Tensor, side: int, scale: int) -> Tensor:
    """Images (B, C, h, w) of at least `side` pixels a side to (B, C, scale h, scale w).

    `network` makes crops (N, C, side, side) `scale` times as large; `side` is a multiple of four.
    """
    batch, channels, height, width = images.shape
    (tops, rows), (lefts, columns) = (crop_weights(length, side, scale) for length in (height, width))
    rows, columns = rows.to(images), columns.to(images)
    result = images.new_zeros(batch, channels, height * scale, width * scale)
    places = list(product(enumerate(tops), enumerate(lefts)))
    for n in range(0, len(places), AT_ONCE):
        some = places[n : n + AT_ONCE]
        crops = torch.stack([images[..., y : y + side, x : x + side] for (_, y), (_, x) in some])
        large = network(crops.flatten(0, 1)).view(len(some), batch, channels, side * scale, side * scale)
        for ((row, y), (column, x)), one in zip(some, large, strict=True):
            down, across = (slice(start * scale, (start + side) * scale) for start in (y, x))
            result[..., down, across] += one * rows[row, down, None] * columns[column, across]
        if n == 0:
            corner = large[0]
    top, seam = side // 4 * scale, int((columns[-1] == 0).sum())
    result[..., :top, : min(seam, side * scale)] = corner[..., :top, :seam]
    return result
