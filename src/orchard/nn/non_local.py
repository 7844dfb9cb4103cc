"""Non-local interaction: every position of a map takes from all positions of another what it is alike to.

Zhang et al. 2020 (arXiv:2007.09451), section 3.1: y_i = Σ_j w_ij v_j with weights from a similarity s_ij of query and
key; the weights of Wang et al. 2018 (arXiv:1711.07971, section 3.2), which the authors of the former released; and the
mixture of softmaxes of Yang et al. 2018 (arXiv:1711.03953). Legend: B images, D channels of a query and of a key, V of
a value, Q queries and K keys of an image.

An interaction takes maps: queries (B, D, H, W), keys (B, D, h, w) and values (B, V, h, w), to (B, V, H, W).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

ROOM = 2**24  # weights of an image that are held at once: 64 MiB of float32

Similarity = Callable[[Tensor, Tensor], Tensor]  # of queries (B, Q, D) and keys (B, K, D): (B, Q, K)


def dot_product(queries: Tensor, keys: Tensor) -> Tensor:
    return queries @ keys.transpose(1, 2)


def negative_squared_distance(queries: Tensor, keys: Tensor) -> Tensor:
    """-|q - k|² (section 3.3, F_eud), without |q|²: a softmax over keys does not see what is the same for all."""
    return torch.baddbmm(-keys.square().sum(2)[:, None], queries, keys.transpose(1, 2), alpha=2)


def positions(x: Tensor) -> Tensor:
    """A map (B, C, H, W) as (B, H · W, C)."""
    return x.flatten(2).transpose(1, 2)


def weighted_sum(weigh: Callable[[Tensor], Tensor], queries: Tensor, values: Tensor, held: int = 1) -> Tensor:
    """`weigh(queries)` (B, Q, K) times `values` (B, K, V), without ever holding more than `ROOM` weights of an image.

    Queries do not see each other, so they come in pieces; for the gradient the weights of a piece are computed again.
    `held` says how many numbers are held for each weight.
    """

    def whole(some: Tensor) -> Tensor:
        return weigh(some) @ values

    size = max(1, ROOM // (held * values.shape[1]))
    if queries.shape[1] <= size:
        return whole(queries)
    pieces = queries.split(size, 1)
    if torch.is_grad_enabled():
        return torch.cat([checkpoint(whole, piece, use_reentrant=False) for piece in pieces], 1)
    return torch.cat([whole(piece) for piece in pieces], 1)


class AveragedDotProduct(nn.Module):
    """w_ij = q_i · k_j / K. Without a softmax the order of the products is free, and pairs need not be held."""

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        sums = keys.flatten(2) @ positions(values)  # (B, D, V)
        y = (positions(queries) @ sums).transpose(1, 2) / keys[0, 0].numel()
        return y.unflatten(2, queries.shape[2:])


class AveragedConcatenation(nn.Module):
    """w_ij = relu(wᵀ [q_i, k_j] + b) / K."""

    def __init__(self, dim: int):
        super().__init__()
        self.weigh = nn.Conv2d(2 * dim, 1, 1)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        of_queries, of_keys = self.weigh.weight.chunk(2, 1)
        first = positions(F.conv2d(queries, of_queries, self.weigh.bias))  # (B, Q, 1)
        second = F.conv2d(keys, of_keys).flatten(2) # (B, 1, K)
        count = keys[0, 0].numel()
        y = weighted_sum(lambda some: F.relu(some + second) / count, first, positions(values))
        return y.transpose(1, 2).unflatten(2, queries.shape[2:])


class MixtureOfSoftmaxes(nn.Module):
    """w_ij = Σ_n π_n softmax_j(s(q_i, k_j) of their nth part) and π = softmax_n(w_n · m) (section 3.2, equation 2).

    Args:
        dim: channels of queries and keys, D.
        parts: how many parts they are cut into, N; one is a plain softmax.
        similarity: s.
        mean_of: whose mean over all positions m is: "keys" in the paper, "queries" in the released code.
        dropout: of the weights, in training.

    Raises ValueError where the parts do not divide the channels.
    """

    def __init__(self, dim: int, parts: int, similarity: Similarity, *, mean_of: str, dropout: float = 0.0):
        super().__init__()
        if dim % parts:
            raise ValueError(f"expected parts that divide the {dim} channels of queries and keys, got {parts}")
        self.parts, self.similarity, self.dropout = parts, similarity, dropout
        self.mean_of_keys = mean_of == "keys"
        if parts > 1:
            self.weight = nn.Parameter(torch.empty(parts, dim))
            nn.init.uniform_(self.weight, -(parts**-0.5), parts**-0.5)

    def shares(self, queries: Tensor, keys: Tensor) -> Tensor:
        """π of each image, (B, N)."""
        if self.parts == 1:
            return queries.new_ones(len(queries), 1)
        mean = (keys if self.mean_of_keys else queries).mean((2, 3))
        return F.linear(mean, self.weight).softmax(1)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        shares = self.shares(queries, keys)[..., None, None]
        keys_of = positions(keys).chunk(self.parts, 2)

        def weigh(some: Tensor) -> Tensor:
            pairs = zip(some.chunk(self.parts, 2), keys_of, strict=True)
            mixed = sum(shares[:, n] * self.similarity(*pair).softmax(2) for n, pair in enumerate(pairs))
            return F.dropout(mixed, self.dropout, self.training)

        y = weighted_sum(weigh, positions(queries), positions(values), held=self.parts + 1)
        return y.transpose(1, 2).unflatten(2, queries.shape[2:])
