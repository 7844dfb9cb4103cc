"""What text encoders answer with: a vector for a text, the token at each position, how two texts go together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Pretraining:
    """The two answers of BERT's pretraining: `tokens` (B, T, V), or (N, V) of N positions, and `pair` (B, 2)."""

    tokens: Tensor
    pair: Tensor


class Pooler(nn.Module):
    """The first token's state through one layer stands for the whole text, (B, T, D) → (B, D)."""

    def __init__(self, width: int, activation: nn.Module):
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.activation = activation

    def forward(self, hidden: Tensor) -> Tensor:
        return self.activation(self.dense(hidden[:, 0]))


class TokenLogits(nn.Module):
    """States (..., D) to the logits of every token, (..., V): `transform`, then products with the table of embeddings.

    The table (V, E) comes with each call, as it belongs to the embedding.
    """

    def __init__(self, vocabulary: int, transform: nn.Module):
        super().__init__()
        self.transform = transform
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        return F.linear(self.transform(hidden), table, self.bias)


class Transform(nn.Module):
    """One layer, an activation and a norm, (..., D) → (..., E), before the products with the table."""

    def __init__(self, width: int, out: int, activation: nn.Module, norm: nn.Module):
        super().__init__()
        self.dense = nn.Linear(width, out)
        self.activation = activation
        self.norm = norm

    def forward(self, hidden: Tensor) -> Tensor:
        return self.norm(self.activation(self.dense(hidden)))


class MaskedHead(nn.Module):
    """Logits of the tokens, and with a layer `pair` also whether the second text follows the first (class 0) or not."""

    def __init__(self, tokens: TokenLogits, pair: nn.Linear | None):
        super().__init__()
        self.tokens = tokens
        self.pair = pair

    def forward(self, hidden: Tensor, table: Tensor, pooled: Tensor) -> Tensor | Pretraining:
        """States (B, T, D), or (N, D) of N positions; `pooled` (B, D) stands for each text."""
        tokens = self.tokens(hidden, table)
        return tokens if self.pair is None else Pretraining(tokens, self.pair(pooled))


class PooledClasses(nn.Module):
    """The first token's state through a layer of its own to the logits of classes, (B, D) → (B, K)."""

    def __init__(self, width: int, classes: int, activation: nn.Module, *, dropout: float):
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, classes)

    def forward(self, first: Tensor) -> Tensor:
        return self.out(self.dropout(self.activation(self.dense(first))))
