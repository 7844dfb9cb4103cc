"""The block of DALLE-pytorch's transformer, and what it remembers between calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from orchard.nn.attention import Attention, KVCache
from orchard.nn.gated_mlp import GatedMlp
from orchard.nn.layer_scale import LayerScale
from orchard.nn.rotary import Rotary
from orchard.nn.token_shift import TokenShift

if TYPE_CHECKING:
    from orchard.models.text_to_image.dalle import DalleConfig


@dataclass
class ShiftCache(KVCache):
    """What one layer with token shift remembers besides: what its two shifts have seen, (B, L, D / 2) each."""

    attention_seen: Tensor
    mlp_seen: Tensor


class DalleBlock(nn.Module):
    """x + gain · attention(shift(norm(x))), then the same with a gated network, (B, T, D) → (B, T, D)."""

    def __init__(self, config: DalleConfig, number: int, rotary: Rotary | None, shift: TokenShift | None):
        super().__init__()
        c = config
        start = 0.1 if number <= 18 else 1e-5 if number <= 24 else 1e-6  # as deep as the layer is, counted from 1
        self.norm1 = nn.LayerNorm(c.width, eps=1e-5)
        self.attention = Attention(
            c.width,
            c.heads,
            bias=False,
            causal=True,
            head_width=c.head_width,
            out_bias=True,
            out_dropout=c.dropout,
            position_encoding=rotary.encode if rotary is not None else None,
        )
        self.scale1 = LayerScale(c.width, start)
        self.norm2 = nn.LayerNorm(c.width, eps=1e-5)
        self.mlp = GatedMlp(c.width, 4 * c.width, nn.GELU(), dropout=c.dropout)
        self.scale2 = LayerScale(c.width, start)
        self.shift = shift

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        y = self._shifted(self.norm1(x), cache, "attention_seen")
        x = x + self.scale1(self.attention(y, mask=mask, cache=cache))
        return x + self.scale2(self.mlp(self._shifted(self.norm2(x), cache, "mlp_seen")))

    def _shifted(self, x: Tensor, cache: KVCache | None, seen: str) -> Tensor:
        if self.shift is None:
            return x
        return self.shift(x) if cache is None else self.shift(x, cache.positions, getattr(cache, seen))
