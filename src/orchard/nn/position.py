"""Position tables, learned and fixed, and encodings of the positions of a map's cells."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


class SineGrid(nn.Module):
    """Sines and cosines of rows and columns (Parmar et al. 2018, arXiv:1802.05751; DETR, appendix A.4).

    A padding mask (B, h, w), true where there is no picture, to encodings (B, h, w, D). Cells are counted from 1 over
    the picture alone. The first half of D is of the row, the second of the column; sines stand at even places, cosines
    at odd ones. `span` is what the last row and column are scaled to (2π in DETR); None leaves the counts as they are.
    """

    def __init__(self, width: int, *, temperature: float, span: float | None, eps: float):
        super().__init__()
        if width % 4:
            raise ValueError(f"a width of {width} does not divide into sines and cosines of rows and columns")
        self.width = width
        self.temperature = temperature
        self.span = span
        self.eps = eps

    def forward(self, padding_mask: Tensor) -> Tensor:
        half = torch.arange(self.width // 4, dtype=torch.float32, device=padding_mask.device)
        periods = self.temperature ** (4 * half / self.width)
        return torch.cat([self._encode(padding_mask, axis, periods) for axis in (1, 2)], dim=-1)

    def _encode(self, padding_mask: Tensor, axis: int, periods: Tensor) -> Tensor:
        counts = (~padding_mask).cumsum(axis, dtype=torch.float32)  # (B, h, w)
        if self.span is not None:
            counts = counts / (counts.narrow(axis, -1, 1) + self.eps) * self.span
        angles = counts[..., None] / periods
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)  # (B, h, w, D / 2)


class LearnedGrid(nn.Module):
    """A learned vector for each column and each row (DETR, table 3), for maps of up to `cells` a side.

    A padding mask (B, h, w), of which only the shape counts, to encodings (B, h, w, D): the column's half first.
    """

    def __init__(self, width: int, *, cells: int):
        super().__init__()
        self.rows = nn.Parameter(torch.rand(cells, width // 2))
        self.columns = nn.Parameter(torch.rand(cells, width // 2))

    def forward(self, padding_mask: Tensor) -> Tensor:
        count, height, width = padding_mask.shape
        if max(height, width) > len(self.rows):
            raise ValueError(f"expected a map of up to {len(self.rows)} cells a side, got {height}x{width}")
        columns = self.columns[:width].expand(count, height, -1, -1)
        rows = self.rows[:height, None].expand(count, -1, width, -1)
        return torch.cat([columns, rows], dim=-1)
