"""Large images through a network piece by piece, without seams."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def in_pieces(
    image: Tensor, compute: Callable[[Tensor], Tensor], *, tile: int, radius: int | None, factor: int = 1
) -> Tensor:
    """What `compute` makes of an image (C, H, W), put together on the CPU, (C', factor H, factor W).

    An image larger than `tile` is computed in pieces that overlap by `radius`, the pixels that the network sees on
    each side of one, so that each is what the whole would give there; memory does not grow with the image but for its
    pixels. A radius of None is that of a network that sees everything: the image is one piece.

    Args:
        image: (C, H, W).
        compute: of a region (C, h, w), gives (C', factor h, factor w); called in order, row by row.
        tile: pixels a side of a piece.
        radius: pixels of the image on each side that a pixel of the result depends on.
        factor: by which `compute` enlarges.
    """
    height, width = image.shape[-2:]
    result = torch.empty(0)
    for top, bottom in _pieces(height, tile, radius):
        for left, right in _pieces(width, tile, radius):
            reach = radius or 0
            above, before = max(top - reach, 0), max(left - reach, 0)
            found = compute(image[:, above : min(bottom + reach, height), before : min(right + reach, width)])
            if not result.numel():
                result = found.new_empty((len(found), height * factor, width * factor), device="cpu")
            rows = slice((top - above) * factor, (bottom - above) * factor)
            columns = slice((left - before) * factor, (right - before) * factor)
            result[:, top * factor : bottom * factor, left * factor : right * factor] = found[:, rows, columns]
    return result


def _pieces(side: int, tile: int, radius: int | None) -> list[tuple[int, int]]:
    """Beginnings and ends along a side."""
    step = side if radius is None else tile
    return [(start, min(start + step, side)) for start in range(0, side, step)]
