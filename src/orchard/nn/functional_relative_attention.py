"""Attention that knows how far tokens are from each other, in its keys and in its values."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchard.nn.position import sinusoids


class FunctionalRelativeAttention(nn.Module):
    """softmax(q (k + r)ᵀ / √d) (v + r) in `heads` subspaces, where r is of the distance from query to key (Wei et al.
    2019, NEZHA, arXiv:1909.00204, section 2.2), (B, T, D) → (B, T, D).

    r is a sinusoid and nothing that is learned; beyond `distance` tokens either way it stays the same. Names and shapes
    of the layers are those of `orchard.nn.attention.Attention`.
    """

    def __init__(self, width: int, heads: int, *, distance: int, dropout: float, out_dropout: float):
        super().__init__()
        self.heads, self.distance, self.dropout = heads, distance, dropout
        self.head_width = width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.out_dropout = nn.Dropout(out_dropout)
        table = sinusoids(2 * distance + 1, self.head_width, interleaved=True)
        self.register_buffer("relative", table, persistent=False)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, cache: None = None) -> Tensor:
        """`mask` (bool, broadcast to (B, heads, T, T)) is true where a query (row) may attend to a key; a `cache` is
        not kept, as all tokens see each other."""
        B, T, _ = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)
        r = self.relative_rows(T)
        scores = (q @ k.transpose(-2, -1) + torch.einsum("bhqd,qkd->bhqk", q, r)) / math.sqrt(self.head_width)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = F.dropout(scores.softmax(-1), self.dropout, self.training)
        read = weights @ v + torch.einsum("bhqk,qkd->bhqd", weights, r)
        return self.out_dropout(self.out(read.transpose(1, 2).flatten(2)))  # (B, heads, T, d) → (B, T, D)

    def relative_rows(self, length: int) -> Tensor:
        """The row of every query (first) and key, (T, T, d)."""
        table = self.get_buffer("relative")
        positions = torch.arange(length, device=table.device)
        steps = (positions[None] - positions[:, None]).clamp(-self.distance, self.distance)
        return table[steps + self.distance]
