"""Position tables, learned and fixed."""

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


def sinusoids(length: int, width: int, *, interleaved: bool) -> Tensor:
    """The table of sines and cosines of Vaswani et al. 2017 (arXiv:1706.03762, section 3.5), (length, width) float32.

    Frequency i is 10000^(-2i / width). `interleaved`: sine and cosine of a frequency stand side by side, as in the
    paper; else all sines come first, then all cosines. Raises ValueError for an odd width.
    """
    if width % 2:
        raise ValueError(f"a width of {width} is odd; sines and cosines come in pairs")
    frequencies = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    table = torch.stack([angles.sin(), angles.cos()], dim=2 if interleaved else 1)
    return table.flatten(1).float()
