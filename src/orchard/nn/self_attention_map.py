"""Self-attention over a map, as SAGAN has it (Zhang et al. 2018, arXiv:1805.08318, section 3, and the authors' code).

Legend: B images, C channels, N = H · W positions, of which a quarter are keys.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MapAttention(nn.Module):
    """x + γ o(attention of x over itself), (B, C, H, W) → (B, C, H, W); γ begins at 0, and nothing changes at first.

    Queries and keys have C / 8 channels, values C / 2; keys and values are the largest of every 2 x 2 positions, and
    similarities are not scaled. `conv1x1(inputs, outputs)` makes the four 1x1 convolutions. Equation 3 is without the
    o of a width of its own and without the pooling, which the authors' code has.
    """

    def __init__(self, channels: int, conv1x1: Callable[[int, int], nn.Module]):
        super().__init__()
        if channels < 8:
            raise ValueError(f"attention needs 8 channels or more, got {channels}")
        self.theta = conv1x1(channels, channels // 8)  # queries
        self.phi = conv1x1(channels, channels // 8)  # keys
        self.g = conv1x1(channels, channels // 2)  # values
        self.o = conv1x1(channels // 2, channels)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        queries = self.theta(x).flatten(2)
        keys, values = (F.max_pool2d(part(x), 2).flatten(2) for part in (self.phi, self.g))
        # In plain products, as penalties differentiate a discriminator twice, which fused kernels do not allow.
        weights = (queries.transpose(1, 2) @ keys).softmax(-1)  # (B, N, N / 4)
        found = values @ weights.transpose(1, 2)
        return x + self.gamma * self.o(found.unflatten(2, x.shape[2:]))
