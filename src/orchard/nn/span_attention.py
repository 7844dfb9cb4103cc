"""Attention over the tokens before, as far back as each head has learned to look (Sukhbaatar et al. 2019,
arXiv:1905.07799), and at vectors that stand for no token (arXiv:1907.01470).

Legend: B texts, T tokens, L the longest span, D width, H heads, d width of a head, N persistent vectors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEP = 64  # positions that are left out at once where no head looks


class AdaptiveSpan(nn.Module):
    """How far each head looks: shares of `longest` positions, (H, 1, 1), learned. Behind a span attention falls to zero
    linearly over `ramp` positions."""

    def __init__(self, heads: int, longest: int, *, ramp: int, init: float):
        super().__init__()
        self.longest, self.ramp = longest, ramp
        self.share = nn.Parameter(torch.full((heads, 1, 1), init))

    def mask(self, length: int) -> Tensor:
        """What the attention to the `length` newest positions is multiplied by, (H, 1, length), in 0 to 1."""
        back = torch.arange(1 - length, 1, device=self.share.device)
        return ((back + self.share * self.longest) / self.ramp + 1).clamp(0, 1)

    def needed(self) -> int:
        """Positions that any head looks at, up to a multiple of `STEP`; without numbers (on the meta device) all."""
        if self.share.is_meta or torch.compiler.is_compiling():
            return self.longest
        used = int((self.share.detach().max() * self.longest).ceil()) + self.ramp
        unused = min(self.longest - 1, max(self.longest - used, 0))
        return self.longest - unused // STEP * STEP


class PersistentMemory(nn.Module):
    """`count` keys and values of every head that are learned: what a feed-forward layer knows, looked up like tokens.

    They are kept divided by √d and √N and multiplied at use, so that they learn as fast as other weights.
    """

    def __init__(self, heads: int, head_width: int, count: int):
        super().__init__()
        self.keys = nn.Parameter(torch.randn(heads, head_width, count) * head_width**-0.5)
        self.values = nn.Parameter(torch.randn(heads, count, head_width) * count**-0.5)

    def scores(self, query: Tensor) -> Tensor:
        return query @ (self.keys * self.keys.shape[1] ** 0.5)

    def read(self, weights: Tensor) -> Tensor:
        return weights @ (self.values * self.values.shape[1] ** 0.5)


class SpanAttention(nn.Module):
    """Tokens (B, T, D) look at the L positions before each, not at themselves → (B, T, D).

    The score of a position is (q·k + q·p) / √d, with p a vector for how far back it stands, shared by all heads and
    layers. Where spans are learned, weights behind a span are taken away and the others divided by what is left.
    """

    def __init__(
        self, width: int, heads: int, *, span: AdaptiveSpan | None, persistent: PersistentMemory | None, dropout: float
    ):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.span, self.persistent, self.dropout = span, persistent, nn.Dropout(dropout)

    def forward(self, x: Tensor, before: Tensor, positions: Tensor) -> Tensor:
        """`before` (B, L, D) are the states before the tokens, `positions` (1, d, L) the vectors, the nearest last."""
        length = self.span.needed() if self.span is not None else before.shape[1]
        both = torch.cat([before[:, before.shape[1] - length :].to(x.dtype), x], dim=1)
        query, key, value = (
            layer(part).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, part in ((self.query, x), (self.key, both), (self.value, both))
        )
        scores = to_spans(query @ key.transpose(-2, -1), length) + query @ positions[0, :, -length:].to(query.dtype)
        if self.persistent is not None:
            scores = torch.cat([scores, self.persistent.scores(query)], dim=-1)
        weights = (scores * query.shape[-1] ** -0.5).float().softmax(-1)
        if self.span is not None:
            kept = F.pad(self.span.mask(length), (0, weights.shape[-1] - length), value=1.0)
            weights = weights * kept
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-8)
        weights = self.dropout(weights.to(value.dtype))
        read = from_spans(weights[..., :length]) @ value
        if self.persistent is not None:
            read = read + self.persistent.read(weights[..., length:])
        return self.out(read.transpose(1, 2).flatten(-2))  # type: ignore[no-any-return]


def to_spans(scores: Tensor, length: int) -> Tensor:
    """Scores (B, H, T, L + T) of all keys as those of the L before each token, (B, H, T, L)."""
    B, H, T, width = scores.shape
    return F.pad(scores.flatten(-2), (0, T)).view(B, H, T, width + 1)[..., :length]


def from_spans(weights: Tensor) -> Tensor:
    """The inverse: (B, H, T, L) as weights of all keys, (B, H, T, L + T), zeros elsewhere."""
    B, H, T, length = weights.shape
    wide = F.pad(weights, (0, T + 1)).flatten(-2)
    return wide[..., : wide.shape[-1] - T].view(B, H, T, length + T)
