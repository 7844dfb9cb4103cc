"""Attention of a recurrent decoder: how well its state fits each position of a memory, and what is read there.

A score is an object: `project(memory)` is done once for a memory, and `score(query, keys)` for every query.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn


class Score(Protocol):
    """Scores of queries against a memory. Modules that are handed in where a decoder attends."""

    def project(self, memory: Tensor) -> Tensor:
        """The share of a memory (B, S, M) in the scores, the same for all queries: keys (B, S, K)."""

    def __call__(self, query: Tensor, keys: Tensor) -> Tensor:
        """Queries (B, T, Q) and keys (B, S, K) → scores (B, T, S)."""


class AdditiveScore(nn.Module):
    """vᵀ tanh(W q + U m), a network with one hidden layer (Bahdanau et al. 2014, arXiv:1409.0473, appendix A.1.2)."""

    def __init__(self, query_width: int, memory_width: int, width: int, *, bias: bool):
        super().__init__()
        self.query = nn.Linear(query_width, width, bias=bias)
        self.memory = nn.Linear(memory_width, width, bias=False)
        self.out = nn.Linear(width, 1, bias=False)

    def project(self, memory: Tensor) -> Tensor:
        return self.memory(memory)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return self.out(torch.tanh(self.query(query)[:, :, None] + keys[:, None])).squeeze(-1)  # (B, T, S, K) → scores


class DotScore(nn.Module):
    """qᵀ m (Luong et al. 2015, arXiv:1508.04025, equation 8); queries are as wide as the memory."""

    def project(self, memory: Tensor) -> Tensor:
        return memory

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return query @ keys.transpose(1, 2)


class GeneralScore(nn.Module):
    """qᵀ W m (Luong et al. 2015, equation 8)."""

    def __init__(self, query_width: int, memory_width: int):
        super().__init__()
        self.query = nn.Linear(query_width, memory_width, bias=False)

    def project(self, memory: Tensor) -> Tensor:
        return memory

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return self.query(query) @ keys.transpose(1, 2)


def read(scores: Tensor, memory: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of a memory (B, S, M), weighted by the softmax of scores (B, T, S) over positions where `mask` (B, S) is
    true: contexts (B, T, M) and weights (B, T, S)."""
    weights = scores.masked_fill(~mask[:, None], float("-inf")).softmax(-1)
    return weights @ memory, weights
