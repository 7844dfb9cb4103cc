"""Dropout whose choice is the same at every token of a text (Gal and Ghahramani 2016, arXiv:1512.05287)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class LockedDropout(nn.Module):
    """Of (B, T, D), each of the B rows loses the same entries at all T tokens ("variational" dropout)."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.p):
            return x
        return x * F.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), self.p, True)


def embed_with_dropout(table: nn.Embedding, tokens: Tensor, p: float) -> Tensor:
    """Embeddings (B, T, D) of tokens (B, T); in training whole words of the table are left out with probability p, each
    wherever it stands."""
    if not (table.training and p):
        return table(tokens)  # type: ignore[no-any-return]
    kept = F.dropout(table.weight.new_ones(len(table.weight), 1), p, True)
    return F.embedding(tokens, table.weight * kept)
