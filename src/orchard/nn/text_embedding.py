"""What stands for a token before any block: the token, where it stands and which text it belongs to."""

from __future__ import annotations

from torch import Tensor, nn


class TextEmbedding(nn.Module):
    """The sum of rows of several tables, normed (Devlin et al. 2018, arXiv:1810.04805, figure 2), (B, T) → (B, T, D).

    `positions` and `segments` are None where a landmark has no such table.
    """

    def __init__(
        self,
        tokens: nn.Embedding,
        positions: nn.Embedding | None,
        segments: nn.Embedding | None,
        norm: nn.Module,
        *,
        dropout: float,
    ):
        super().__init__()
        self.tokens = tokens
        self.positions = positions
        self.segments = segments
        self.norm = norm
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, positions: Tensor, segments: Tensor, more: Tensor | None = None) -> Tensor:
        """`positions` (T,) or (B, T) and `segments` (B, T) int64 are rows of their tables, `more` (B, T, D) is added."""
        x: Tensor = self.tokens(tokens)
        if self.positions is not None:
            x = x + self.positions(positions)
        if self.segments is not None:
            x = x + self.segments(segments)
        if more is not None:
            x = x + more
        return self.dropout(self.norm(x))
