"""Scaled dot-product attention with several heads (Vaswani et al. 2017, arXiv:1706.03762, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PositionEncoding = Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor]]


@dataclass
class KVCache:
    """Keys and values of one attention layer, (B, heads, L, d), with room for L tokens.

    `positions` (T,) int64 are those of the tokens of the next call. All layers of a model share one `positions`, and
    whoever calls the model advances it.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write (B, heads, T, d) at `positions` and return all keys and values, (B, heads, L, d)."""
        self.keys.index_copy_(2, self.positions, keys)
        self.values.index_copy_(2, self.positions, values)
        return self.keys, self.values


@dataclass(frozen=True)
class ProjectedMemory:
    """Keys and values of a memory, (B, heads, S, d), projected once for all steps of a decoder."""

    keys: Tensor
    values: Tensor


class Attention(nn.Module):
    """softmax(q kᵀ / √d + bias) v in `heads` subspaces, (B, T, D) → (B, T, D).

    Query, key and value projections are the rows of one matrix, in that order. A `causal` layer attends to no later
    token. `dropout` is applied to the attention weights, `out_dropout` to the result. `head_width` is d where it is not
    width / heads, `out_bias` the bias of the last layer where it differs from that of the first, and `scale` what
    products are multiplied by where that is not 1 / √d.
    `position_encoding(q, k, v, positions)` encodes positions in queries and keys of self-attention (rotary embeddings).
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
        position_encoding: PositionEncoding | None = None,
        scale: float | None = None,
    ):
        super().__init__()
        if head_width is None and width % heads:
            raise ValueError(f"a width of {width} does not divide into {heads} heads")
        self.heads = heads
        self.head_width = head_width or width // heads
        self.causal = causal
        self.dropout = dropout
        self.position_encoding = position_encoding
        self.scale = scale
        self.qkv = nn.Linear(width, 3 * heads * self.head_width, bias=bias)
        self.out = nn.Linear(heads * self.head_width, width, bias=bias if out_bias is None else out_bias)
        self.out_dropout = nn.Dropout(out_dropout)

    def forward(
        self,
        query: Tensor,
        key: Tensor | ProjectedMemory | None = None,
        value: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Attend from `query` (B, T, D) to `key` (B, S, D), by default the query itself, and read `value`, by default
        the key.

        `mask` (bool, true where a query (row) may attend to a key) restricts what causality allows further; `bias`
        (float) is added to the scores; both broadcast to (B, heads, T, S). With a `cache`, S is its length: the new
        keys and values are written at its positions, and a causal layer attends to positions up to the query's own.
        """
        if isinstance(key, ProjectedMemory):
            q, k, v = self._project(query, 0), key.keys, key.values
        elif key is None and value is None:
            q, k, v = self.project_qkv(query, cache.positions if cache is not None else None)
        else:
            memory = query if key is None else key
            q, k, v = (self._project(x, n) for n, x in enumerate((query, memory, memory if value is None else value)))
        if cache is not None:
            k, v = cache.extend(k, v)
        restricted = mask is not None or bias is not None or cache is not None
        if self.causal and restricted:
            positions = cache.positions if cache is not None else torch.arange(q.shape[2], device=q.device)
            causal = torch.arange(k.shape[2], device=q.device) <= positions[:, None]
            mask = causal if mask is None else causal & mask
        if bias is not None:
            mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(
            q, k, v, mask, dropout, is_causal=self.causal and not restricted, scale=self.scale
        )
        return self.out_dropout(self.out(x.transpose(1, 2).flatten(2)))  # (B, heads, T, d) → (B, T, heads·d)

    def project_qkv(self, x: Tensor, positions: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, T, d), of tokens at `positions` (by default 0, 1, ...)."""
        B, T, _ = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4).unbind(0)
        return self.position_encoding(q, k, v, positions) if self.position_encoding is not None else (q, k, v)

    def project_memory(self, memory: Tensor) -> ProjectedMemory:
        """Keys and values of a memory (B, S, D), to be passed as `key` in every decoding step."""
        return ProjectedMemory(self._project(memory, 1), self._project(memory, 2))

    def _project(self, x: Tensor, part: int) -> Tensor:
        """Query (part 0), key (1) or value (2) of x (B, T, D): (B, heads, T, d)."""
        weight = self.qkv.weight.chunk(3)[part]
        bias = None if self.qkv.bias is None else self.qkv.bias.chunk(3)[part]
        return F.linear(x, weight, bias).view(*x.shape[:2], self.heads, self.head_width).transpose(1, 2)

    def weights(self, query: Tensor, key: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The attention weights themselves, (B, heads, T, S), to look at."""
        if key is None:
            q, k, _ = self.project_qkv(query)
        else:
            q, k = self._project(query, 0), self._project(key, 1)
        scores = q @ k.transpose(-2, -1) * (1 / math.sqrt(self.head_width) if self.scale is None else self.scale)
        if self.causal:
            scores = scores.masked_fill(~causal_mask(query.shape[1], query.device), float("-inf"))
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(-1)


def causal_mask(length: int, device: torch.device | None = None) -> Tensor:
    """(length, length) bool, true where a token (row) may attend to another (column): itself and all before it."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
