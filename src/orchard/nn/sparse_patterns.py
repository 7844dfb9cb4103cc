"""Which codes of a picture see which: patterns of sparse attention over a grid that is written row by row.

A pattern is a bool matrix, true where the code of a row may see that of a column. Two sets are in use: those of
lucidrains' DALLE-pytorch, where a row ends at its edge, and those of Ramesh et al. 2021 (arXiv:2102.12092, figure 11),
which count back along the sequence and so run on into the row above.
"""

from __future__ import annotations

import torch
from torch import Tensor

from orchard.nn.attention import causal_mask

PATTERNS = ("full", "axial_row", "axial_col", "conv_like", "paper_row", "paper_conv")


def grid_pattern(name: str, side: int, kernel: int) -> Tensor:
    """(side², side²) bool for one of PATTERNS, causal; `kernel` is the side of a convolution's window.

    axial_row: its own row. axial_col: its own column (in the paper too). conv_like: a window whose last corner is the
    code itself. paper_row: all codes back to the one right above. paper_conv: the part of a window around the code that
    came before it.
    """
    places = torch.arange(side * side)
    back = places[:, None] - places  # how far back a column's code is
    row, column = places // side, places % side
    up, left = row[:, None] - row, column[:, None] - column
    if name == "axial_row":
        seen = up == 0
    elif name == "axial_col":
        seen = left == 0
    elif name == "conv_like":
        seen = (up < kernel) & (left >= 0) & (left < kernel)
    elif name == "paper_row":
        seen = back <= side
    elif name == "paper_conv":
        reach = kernel // 2
        steps = [down * side + across for down in range(reach + 1) for across in range(-reach, reach + 1)]
        seen = torch.isin(back, torch.tensor(steps))
    else:
        seen = torch.ones_like(back, dtype=torch.bool)
    return seen & (back >= 0)


def after_text(pattern: Tensor, text: int) -> Tensor:
    """The pattern (N, N) of a picture behind a text that all of it sees, (text + N, text + N), causal throughout."""
    mask = causal_mask(text + len(pattern), pattern.device)
    mask[text:, text:] = pattern
    return mask
