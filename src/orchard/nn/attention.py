"""Scaled dot-product attention with several heads (Vaswani et al. 2017, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Turn = Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor]]


@dataclass
class Past:
    """What one attention layer remembers: keys and values, (B, heads, L, d), with room for L tokens.

    `places` (T,) int64 says where the tokens of the next call stand. All layers of a model share one `places`, and
    whoever calls the model moves it on.
    """

    keys: Tensor
    values: Tensor
    places: Tensor

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write (B, heads, T, d) at `places` and return all that is remembered, (B, heads, L, d)."""
        self.keys.index_copy_(2, self.places, keys)
        self.values.index_copy_(2, self.places, values)
        return self.keys, self.values


class SelfAttention(nn.Module):
    """Every token looks at the tokens it may see: softmax(q kᵀ / √d) v in `heads` subspaces, (B, T, D) → (B, T, D).

    Query, key and value come from one matrix, rows in that order. A `causal` layer sees no later token. `dropout` falls
    on the attention weights, `out_dropout` on the result. `head_width` is d where it is not width / heads, `out_bias`
    the bias of the last map where it differs from that of the first. `turn(q, k, v, places)` puts positions into
    queries and keys (rotary embeddings and their kin).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        bias: bool,
        causal: bool,
        head_width: int | None = None,
        out_bias: bool | None = None,
        dropout: float = 0.0,
        out_dropout: float = 0.0,
        turn: Turn | None = None,
    ):
        super().__init__()
        if head_width is None and width % heads:
            raise ValueError(f"a width of {width} does not divide into {heads} heads")
        self.heads = heads
        self.head_width = head_width or width // heads
        self.causal = causal
        self.dropout = dropout
        self.turn = turn
        self.qkv = nn.Linear(width, 3 * heads * self.head_width, bias=bias)
        self.out = nn.Linear(heads * self.head_width, width, bias=bias if out_bias is None else out_bias)
        self.out_dropout = nn.Dropout(out_dropout)

    def heads_of(self, x: Tensor, places: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, T, d), of tokens at `places` (0, 1, ... where none are given)."""
        B, T, _ = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4).unbind(0)
        return self.turn(q, k, v, places) if self.turn is not None else (q, k, v)

    def forward(self, x: Tensor, mask: Tensor | None = None, past: Past | None = None) -> Tensor:
        """`mask` is true where a query (row) may see a key (column), any shape that fits (B, heads, T, keys).

        It stands in place of the causal rule, and with a `past` it has to be given: its columns are the L places of the
        past, the rows the T tokens of this call.
        """
        q, k, v = self.heads_of(x, past.places if past is not None else None)
        if past is not None:
            k, v = past.extend(k, v)
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=self.causal and mask is None)
        return self.out_dropout(self.out(x.transpose(1, 2).flatten(2)))  # (B, heads, T, d) → (B, T, heads·d)

    def weights(self, x: Tensor) -> Tensor:
        """The attention weights themselves, (B, heads, T, T), for those who want to look at them."""
        q, k, _ = self.heads_of(x)
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_width)
        if self.causal:
            scores = scores.masked_fill(~causal_mask(x.shape[1], x.device), float("-inf"))
        return scores.softmax(-1)


def causal_mask(length: int, device: torch.device | None = None) -> Tensor:
    """(length, length) bool, true where a token (row) may see another (column): itself and all before it."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
