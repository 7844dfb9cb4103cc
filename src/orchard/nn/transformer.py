"""The transformer's block, as objects put together: which attention, which network, which norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from orchard.nn.attention import Past


class Mlp(nn.Module):
    """Two linear maps with an activation between, (..., D) → (..., D) (Vaswani et al. 2017, section 3.3).

    `hidden_dropout` falls on what the activation gives, `out_dropout` on the result.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: nn.Module,
        *,
        bias: bool = True,
        hidden_dropout: float = 0.0,
        out_dropout: float = 0.0,
    ):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden, bias=bias)
        self.activation = activation
        self.hidden_dropout = nn.Dropout(hidden_dropout)
        self.fc2 = nn.Linear(hidden, width, bias=bias)
        self.out_dropout = nn.Dropout(out_dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_dropout(self.fc2(self.hidden_dropout(self.activation(self.fc1(x)))))


class PreNormBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): the norm stands before each branch, (B, T, D) → (B, T, D).

    `drop_path` is the probability that a sample skips a branch (Huang et al. 2016).
    """

    def __init__(self, norm1: nn.Module, attention: nn.Module, norm2: nn.Module, mlp: nn.Module, *, drop_path: float):
        super().__init__()
        self.norm1 = norm1
        self.attention = attention
        self.norm2 = norm2
        self.mlp = mlp
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor, mask: Tensor | None = None, past: Past | None = None) -> Tensor:
        """`mask` and `past` are the attention's (`SelfAttention.forward`)."""
        x = x + self.drop_path(self.attention(self.norm1(x), mask, past))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Stack(nn.Module):
    """Blocks one after the other, then a norm: the core of a sequence model, whatever its tokens are.

    (B, T, D) → (B, T, D). Blocks take `(x, mask, past)`; `past` has one entry for each.
    """

    def __init__(self, blocks: Sequence[nn.Module], norm: nn.Module):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm

    def forward(self, x: Tensor, mask: Tensor | None = None, past: Sequence[Past] | None = None) -> Tensor:
        for n, block in enumerate(self.blocks):
            x = block(x, mask, past[n] if past is not None else None)
        return self.norm(x)

    def empty_past(self, batch: int, length: int) -> list[Past]:
        """Room for `length` tokens of `batch` sequences in every layer, where the weights are and of their type."""
        like = next(self.parameters())
        nowhere = torch.arange(0, device=like.device)
        attentions: list[Any] = [block.attention for block in self.blocks]
        shapes = [(batch, attention.heads, length, attention.head_width) for attention in attentions]
        return [Past(like.new_zeros(shape), like.new_zeros(shape), nowhere) for shape in shapes]
