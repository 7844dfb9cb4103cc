"""Position tables."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_position_grid(table: Tensor, old: tuple[int, int], new: tuple[int, int], prefix: int) -> Tensor:
    """Stretch a learned table of positions (1, prefix + h·w, D) from one grid of patches to another.

    The first `prefix` rows (class token) stay as they are. Bilinear with the corners kept in place, as the
    ViT authors' loader does it (a first-order spline zoom).
    """
    if old == new:
        return table
    kept, grid = table[:, :prefix], table[:, prefix:]
    grid = grid.reshape(1, *old, -1).permute(0, 3, 1, 2)  # (1, D, h, w)
    grid = F.interpolate(grid.float(), size=new, mode="bilinear", align_corners=True).to(table.dtype)
    return torch.cat([kept, grid.flatten(2).transpose(1, 2)], dim=1)
