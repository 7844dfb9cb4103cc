"""The transformer's block, as objects put together: which attention, which network, which norm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from orchard.nn.attention import KVCache, ProjectedMemory
from orchard.nn.stochastic_depth import StochasticDepth

Branch = Callable[[Tensor], Tensor]


class Mlp(nn.Module):
    """Two linear layers with an activation between, (..., D) → (..., D) (Vaswani et al. 2017, section 3.3).

    `hidden_dropout` is applied after the activation, `out_dropout` to the result.
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


def pre_norm(x: Tensor, norm: nn.Module, branch: Branch) -> Tensor:
    """x + branch(norm(x)): the norm stands before the branch (Xiong et al. 2020, arXiv:2002.04745)."""
    return x + branch(norm(x))


def post_norm(x: Tensor, norm: nn.Module, branch: Branch) -> Tensor:
    """norm(x + branch(x)): the norm stands after the sum (Vaswani et al. 2017, section 3.1)."""
    normed: Tensor = norm(x + branch(x))
    return normed


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
        self.drop_path = StochasticDepth(drop_path)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        *,
        positions: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """`mask`, `cache` and `bias`: of the attention; `positions` (B, T, D) are added to queries and keys."""
        more = {} if bias is None else {"bias": bias}
        x = x + self.drop_path(attend(self.attention, self.norm1(x), positions, mask=mask, cache=cache, **more))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PostNormBlock(nn.Module):
    """norm(x + attention(x)), then norm(x + mlp(x)): the norm stands after each sum, (B, T, D) → (B, T, D)."""

    def __init__(self, norm1: nn.Module, attention: nn.Module, norm2: nn.Module, mlp: nn.Module):
        super().__init__()
        self.norm1 = norm1
        self.attention = attention
        self.norm2 = norm2
        self.mlp = mlp

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        *,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Arguments as in `PreNormBlock`."""
        x = post_norm(x, self.norm1, lambda y: attend(self.attention, y, positions, mask=mask, cache=cache))
        return post_norm(x, self.norm2, self.mlp)


class DecoderBlock(nn.Module):
    """Self-attention, attention to a memory and an MLP, each with a residual connection (Vaswani et al. 2017, fig. 1).

    `residual` is `pre_norm` or `post_norm`.
    """

    def __init__(
        self,
        norm1: nn.Module,
        self_attention: nn.Module,
        norm2: nn.Module,
        cross_attention: nn.Module,
        norm3: nn.Module,
        mlp: nn.Module,
        *,
        residual: Callable[[Tensor, nn.Module, Branch], Tensor],
    ):
        super().__init__()
        self.norm1 = norm1
        self.self_attention = self_attention
        self.norm2 = norm2
        self.cross_attention = cross_attention
        self.norm3 = norm3
        self.mlp = mlp
        self.residual = residual

    def forward(
        self,
        x: Tensor,
        memory: Tensor | ProjectedMemory,
        *,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
        memory_positions: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, D) and a memory (B, S, D), or its projection by the cross-attention → (B, T, D).

        `mask`, `cache` and `bias` are the self-attention's, `memory_mask` the cross-attention's. `positions` (B, T, D)
        are added to queries and keys of the self-attention and to queries of the cross-attention, `memory_positions`
        (B, S, D) to its keys.
        """

        def cross(y: Tensor) -> Tensor:
            query = y if positions is None else y + positions
            if isinstance(memory, ProjectedMemory) or memory_positions is None:
                return self.cross_attention(query, memory, mask=memory_mask)  # type: ignore[no-any-return]
            return self.cross_attention(query, memory + memory_positions, memory, mask=memory_mask)  # type: ignore[no-any-return]

        def look(y: Tensor) -> Tensor:
            more = {} if bias is None else {"bias": bias}
            return attend(self.self_attention, y, positions, mask=mask, cache=cache, **more)

        x = self.residual(x, self.norm1, look)
        x = self.residual(x, self.norm2, cross)
        return self.residual(x, self.norm3, self.mlp)


def attend(attention: nn.Module, x: Tensor, positions: Tensor | None, **arguments: Any) -> Tensor:
    """Self-attention of x (B, T, D), `positions` added to queries and keys where there are any."""
    if positions is None:
        return attention(x, **arguments)  # type: ignore[no-any-return]
    return attention(x + positions, x + positions, x, **arguments)  # type: ignore[no-any-return]


class Stack(nn.Module):
    """Blocks one after the other, then a norm: the core of a sequence model, whatever its tokens are.

    (B, T, D) → (B, T, D). Blocks take `(x, mask, cache)`; `cache` has one entry for each.
    """

    def __init__(self, blocks: Sequence[nn.Module], norm: nn.Module):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: Sequence[KVCache] | None = None) -> Tensor:
        for n, block in enumerate(self.blocks):
            x = block(x, mask, cache[n] if cache is not None else None)
        return self.norm(x)

    def make_cache(self, batch: int, length: int) -> list[KVCache]:
        """Room for `length` tokens of `batch` sequences in every layer, where the weights are and of their type."""
        like = next(self.parameters())
        nowhere = torch.arange(0, device=like.device)
        attentions: list[Any] = [block.attention for block in self.blocks]
        shapes = [(batch, attention.heads, length, attention.head_width) for attention in attentions]
        return [KVCache(like.new_zeros(shape), like.new_zeros(shape), nowhere) for shape in shapes]
