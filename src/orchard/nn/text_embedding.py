"""What stands for a token before any block: the token, where it stands and which text it belongs to."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class TextEmbedding(nn.Module):
    """The sum of rows of several tables, normed (Devlin et al. 2018, arXiv:1810.04805, figure 2), (B, T) → (B, T, D).

    `tables` are those that a landmark has beside that of the tokens (positions, segments, ...), by their names.
    `project` brings the sum to the width of the blocks where tables are narrower.
    """

    def __init__(
        self,
        tokens: nn.Embedding,
        tables: Mapping[str, nn.Embedding],
        norm: nn.Module,
        *,
        dropout: float,
        project: nn.Module | None = None,
    ):
        super().__init__()
        self.tokens = tokens
        self.tables = nn.ModuleDict(dict(tables))
        self.norm = norm
        self.dropout = nn.Dropout(dropout)
        self.project = project

    def forward(self, tokens: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        """`rows` (T,) or (B, T) int64 for every table; what is there for no table is not looked at."""
        x: Tensor = self.tokens(tokens)
        for name, table in self.tables.items():
            x = x + table(rows[name])
        x = self.dropout(self.norm(x))
        return x if self.project is None else self.project(x)
