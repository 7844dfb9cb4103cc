"""Anchors: the boxes that a detector's predictions start from (Ren et al. 2015, arXiv:1506.01497, section 3.1.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def cell_anchors(size: float, ratios: Sequence[float]) -> Tensor:
    """Boxes around the point 0, (A, 4): left, top, right, bottom, in whole pixels.

    Each has an area of about `size`²; ratios are of height to width. Rounded as torchvision does.
    """
    roots = torch.tensor(ratios, dtype=torch.float32).sqrt()
    widths, heights = (1 / roots) * size, roots * size
    return (torch.stack([-widths, -heights, widths, heights], 1) / 2).round()


def grid_anchors(cell: Tensor, grid: Sequence[int], image: Sequence[int]) -> Tensor:
    """The anchors `cell` (A, 4) at every cell of a map, (H · W · A, 4), row by row, in pixels of the image.

    `grid` and `image` are heights and widths; a cell's step is their quotient, rounded down.
    """
    rows, columns = (
        torch.arange(cells, device=cell.device) * (side // cells) for cells, side in zip(grid, image, strict=True)
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    corners = torch.stack([x, y, x, y], -1).view(-1, 1, 4)
    return (corners + cell).view(-1, 4)
