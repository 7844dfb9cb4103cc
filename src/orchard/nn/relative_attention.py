"""Attention by relative positions over a memory of former states (Dai et al. 2019, arXiv:1901.02860, section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RelativeAttention(nn.Module):
    """Queries (B, T, D) look at M remembered states and at themselves, (B, M + T, D) in all → (B, T, D).

    The score of a key is (q + u)·k + (q + v)·r over √d, where r is made of the sinusoids of how far back the key
    stands: nothing says where a text begins, so that states of former segments can be used again. Nobody looks ahead.
    """

    def __init__(self, width: int, heads: int, head_width: int, *, dropout: float):
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.qkv = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.position = nn.Linear(width, heads * head_width, bias=False)
        self.out = nn.Linear(heads * head_width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, length: int, distances: Tensor, biases: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """`x` (B, L, D) are memory and tokens, of which the last `length` are queries; `distances` (L, D) the sinusoids
        of L - 1, ..., 0; `biases` u and v, each (H, d); `mask` (B, 1, T, L) is true where a query may look."""
        split = (self.heads, self.head_width)
        query, key, value = (part.unflatten(-1, split).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        query = query[:, :, -length:]
        position = self.position(distances).unflatten(-1, split).transpose(0, 1)  # (H, L, d)
        content_bias, position_bias = (bias[:, None] for bias in biases)
        scores = (query + content_bias) @ key.transpose(-2, -1)
        scores = scores + shift_to_distances((query + position_bias) @ position.transpose(-2, -1))
        scores = (scores * self.head_width**-0.5).masked_fill(~mask, float("-inf"))
        read = self.dropout(scores.float().softmax(-1).to(value.dtype)) @ value
        return self.out(read.transpose(1, 2).flatten(-2))  # type: ignore[no-any-return]


def shift_to_distances(scores: Tensor) -> Tensor:
    """Scores (B, H, T, L) by distance, the largest first, as scores by key: entry j of query i is what stands T - 1 - i
    further on. What comes in from the row below is of keys ahead."""
    B, H, T, L = scores.shape
    return F.pad(scores, (1, 0)).view(B, H, L + 1, T)[:, :, 1:].reshape(B, H, T, L)


def segment_mask(length: int, memory: int, seen: Tensor, *, same_length: bool, inclusive: bool) -> Tensor:
    """(B, 1, T, M + T), true where a token may look: at what is remembered, `seen` (B,) of the M states, and at tokens
    up to itself; with `same_length` each at the M newest alone, or where `inclusive` at M and itself."""
    keys = torch.arange(memory + length, device=seen.device)
    queries = torch.arange(length, device=seen.device)[:, None]
    allowed = keys <= queries + memory
    if same_length:
        allowed = allowed & (keys >= queries if inclusive else keys > queries)
    return (allowed & (keys >= memory - seen[:, None, None]))[:, None]
