"""Non-local interaction: every position of a map takes from all positions of another what it is alike to.

Zhang et al. 2020 (arXiv:2007.09451), section 3.1: y_i = Σ_j w_ij v_j with weights from a similarity s_ij of query and
key; the weights of Wang et al. 2018 (arXiv:1711.07971, section 3.2), which the authors of the former released; and the
mixture of softmaxes of Yang et al. 2018 (arXiv:1711.03953). Legend: B images, D channels of a query and of a key, V of
a value, Q queries and K keys of an image.

An interaction takes maps: queries (B, D, H, W), keys (B, D, h, w) and values (B, V, h, w), to (B, V, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def as_map(y: Tensor, like: Tensor) -> Tensor:
    """(B, H · W, C) as a map of the height and width of another."""
    return y.transpose(1, 2).reshape(y.shape[0], -1, *like.shape[2:])


def in_pieces(compute: Callable[..., Tensor], pieces: Sequence[Sequence[Tensor]], dim: int) -> Tensor:
    """`compute` of each piece, joined along `dim`; what several pieces hold inside is computed again for the gradient,
    so that no more than one of them is held."""
    if len(pieces) == 1:
        return compute(*pieces[0])
    if torch.is_grad_enabled():
        return torch.cat([checkpoint(compute, *piece, use_reentrant=False) for piece in pieces], dim)
    return torch.cat([compute(*piece) for piece in pieces], dim)


def weighted_sum(weigh: Callable[[Tensor], Tensor], queries: Tensor, values: Tensor, held: int = 1) -> Tensor:
    """`weigh(queries)` (B, Q, K) times `values` (B, K, V), without ever holding more than `ROOM` numbers of an image.

    Queries do not see each other, so they come in pieces. `held` says how many numbers are held for each weight.
    """
    pieces = torch.split(queries, max(1, ROOM // (held * values.shape[1])), 1)
    return in_pieces(lambda some: weigh(some) @ values, [(piece,) for piece in pieces], 1)


class AveragedDotProduct(nn.Module):
    """w_ij = q_i · k_j / K. Without a softmax the order of the products is free, and pairs need not be held."""

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        sums = keys.flatten(2) @ positions(values)  # (B, D, V)
        return as_map(positions(queries) @ sums / keys[0, 0].numel(), queries)


class AveragedConcatenation(nn.Module):
    """w_ij = relu(wᵀ [q_i, k_j] + b) / K."""

    def __init__(self, dim: int):
        super().__init__()
        self.weigh = nn.Conv2d(2 * dim, 1, 1)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        of_queries, of_keys = self.weigh.weight.chunk(2, 1)
        first = positions(F.conv2d(queries, of_queries, self.weigh.bias))  # (B, Q, 1)
        second = F.conv2d(keys, of_keys).flatten(2)  # (B, 1, K)
        count = keys[0, 0].numel()
        y = weighted_sum(lambda some: F.relu(some + second) / count, first, positions(values))
        return as_map(y, queries)


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
        """π of each image, (B, N), or (1, 1) where there is one part."""
        if self.parts == 1:
            return queries.new_ones(1, 1)
        mean = (keys if self.mean_of_keys else queries).mean((2, 3))
        return F.linear(mean, self.weight).softmax(1)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        shares = self.shares(queries, keys)[..., None, None]
        keys_of = positions(keys).chunk(self.parts, 2)

        def weigh(some: Tensor) -> Tensor:
            pairs = zip(some.chunk(self.parts, 2), keys_of, strict=True)
            softmaxes = (shares[:, n] * self.similarity(*pair).softmax(2) for n, pair in enumerate(pairs))
            mixed: Tensor = sum(softmaxes)  # type: ignore[assignment]
            return F.dropout(mixed, self.dropout, self.training)

        y = weighted_sum(weigh, positions(queries), positions(values), held=self.parts + 1)
        return as_map(y, queries)
