"""Virtual batch norm: a sample is normalised by a reference batch that is always the same, and by itself.

Salimans et al. 2016 (arXiv:1606.03498, section 3.4). So what a network makes of a sample does not depend on the others
of its batch, in training and in evaluation alike.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPS = 1e-5


class VirtualBatchNorm2d(nn.Module):
    """Maps (R + B, C, H, W) of the R samples of the reference batch, then of others → the same, normalised.

    The reference batch is normalised by its own statistics, each other sample by those of the reference batch and
    itself, R + 1 samples that weigh the same. Gain and bias of a channel are learned.
    """

    def __init__(self, channels: int, reference: int):
        super().__init__()
        self.reference = reference  # R
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()  # a difference of squares
        means, squares = wide.mean((2, 3), keepdim=True), wide.square().mean((2, 3), keepdim=True)
        count = self.reference
        mean, square = means[:count].mean(0, keepdim=True), squares[:count].mean(0, keepdim=True)
        mean = torch.cat([mean.expand(count, -1, -1, -1), (count * mean + means[count:]) / (count + 1)])
        square = torch.cat([square.expand(count, -1, -1, -1), (count * square + squares[count:]) / (count + 1)])
        scale = self.weight[:, None, None] * torch.rsqrt(square - mean.square() + EPS)
        return ((wide - mean) * scale + self.bias[:, None, None]).to(x.dtype)
