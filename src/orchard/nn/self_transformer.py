"""FPT's self-transformer: non-local interaction within one level (Zhang et al. 2020, arXiv:2007.09451, section 3.2)."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from orchard.nn.non_local import MixtureOfSoftmaxes, dot_product


class SelfTransformer(nn.Module):
    """Maps (B, channels, H, W) to x + norm(conv(y)), of the same shape, by the released code.

    Similarity is q · k over the root of all channels, whatever their parts. Queries and keys have one projection. With
    `pooled`, keys and values are of every second row and column, means of 3 x 3 cells: a quarter of the pairs.
    """

    def __init__(self, channels: int, *, parts: int, pooled: bool = True, dropout: float = 0.1):
        super().__init__()
        self.pooled = pooled
        self.project = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        scaled = partial(scaled_dot_product, scale=channels**-0.5)
        self.interaction = MixtureOfSoftmaxes(channels, parts, scaled, mean_of="queries", dropout=dropout)
        self.output = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        near = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False) if self.pooled else x
        y = self.interaction(self.project(x), self.project(near), self.value(near))
        return x + self.norm(self.output(y))  # type: ignore[no-any-return]


def scaled_dot_product(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    return dot_product(scale * queries, keys)
