"""A learned bias of attention scores by distance (Raffel et al. 2019, arXiv:1910.10683, section 2.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class RelativeBias(nn.Module):
    """For each head one number for every bucket of distances: (1, heads, T, S), to be added to scores.

    Half of the buckets are for one distance each, the other half grow with the logarithm up to `distance`, beyond which
    all share the last. `bidirectional`: half of all buckets are for tokens that come later; else those count as at 0.
    """

    def __init__(self, buckets: int, distance: int, heads: int, *, bidirectional: bool):
        super().__init__()
        if buckets < 4 or buckets % 2:
            raise ValueError(f"{buckets} buckets cannot be halved twice; expected an even number of 4 or more")
        self.buckets, self.distance, self.bidirectional = buckets, distance, bidirectional
        self.table = nn.Embedding(buckets, heads)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Positions of queries (T,) and keys (S,) int64."""
        away = keys - queries[:, None]
        return self.table(bucket_of(away, self.buckets, self.distance, self.bidirectional)).permute(2, 0, 1)[None]


def bucket_of(away: Tensor, buckets: int, distance: int, bidirectional: bool) -> Tensor:
    """The bucket of each of `away`, a key's position less the query's, int64."""
    if bidirectional:
        buckets //= 2
        first = (away > 0).long() * buckets
        away = away.abs()
    else:
        first = torch.zeros_like(away)
        away = (-away).clamp_min(0)
    exact = buckets // 2
    growth = torch.log(away.clamp_min(1).float() / exact) / math.log(distance / exact) * (buckets - exact)
    far = (exact + growth.long()).clamp_max(buckets - 1)
    return first + torch.where(away < exact, away, far)
