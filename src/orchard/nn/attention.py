"""Scaled dot-product attention with several heads (Vaswani et al. 2017, section 3.2)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Every token looks at every token: softmax(q kᵀ / √d) v in `heads` subspaces, (B, T, D) → (B, T, D).

    Query, key and value come from one matrix, rows in that order. `dropout` falls on the attention weights,
    `out_dropout` on the result.
    """

    def __init__(self, width: int, heads: int, *, bias: bool, dropout: float = 0.0, out_dropout: float = 0.0):
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} does not divide into {heads} heads")
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)
        self.out_dropout = nn.Dropout(out_dropout)

    def heads_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, T, D / heads)."""
        B, T, D = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads_of(x)
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.out_dropout(self.out(x.transpose(1, 2).flatten(2)))  # (B, heads, T, d) → (B, T, D)

    def weights(self, x: Tensor) -> Tensor:
        """The attention weights themselves, (B, heads, T, T), for those who want to look at them."""
        q, k, _ = self.heads_of(x)
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        return scores.softmax(-1)
