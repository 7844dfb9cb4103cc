"""Token shift: some features of a token are replaced by those of neighbours before it (lucidrains, after Peng Bo)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TokenShift(nn.Module):
    """A text, then a picture written row by row, `side` codes a row, (B, T, D) → (B, T, D).

    A code takes its first quarter from the code above and its second from the one to the left; a token of the text
    takes both from the token before. Zeros come in at the edges.
    """

    sources: Tensor

    def __init__(self, text: int, side: int):
        super().__init__()
        grid = torch.arange(side * side)
        before = torch.arange(text) - 1  # -1: nothing is there
        above = torch.where(grid < side, -1, text + grid - side)
        left = torch.where(grid % side == 0, -1, text + grid - 1)
        sources = torch.stack([torch.cat([before, above]), torch.cat([before, left])])
        self.register_buffer("sources", sources, persistent=False)

    def forward(self, x: Tensor, positions: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
        """Tokens at `positions` (T,), or 0, 1, ...; `memory` (B, L, D / 2) holds those of earlier calls."""
        first, second, *rest = x.chunk(4, dim=-1)
        seen = torch.cat([first, second], dim=-1)
        if positions is None or memory is None:
            sources = self.sources[:, : x.shape[1]]
        else:
            sources = self.sources[:, positions]
            seen = memory.index_copy_(1, positions, seen)
        moved = [
            half.index_select(1, source.clamp(min=0)).masked_fill((source < 0)[:, None], 0)
            for half, source in zip(seen.chunk(2, dim=-1), sources, strict=True)
        ]
        return torch.cat([*moved, *rest], dim=-1)
