"""How much the images of a batch differ, as a map beside the others (Karras et al. 2017, arXiv:1710.10196, section 3).

A discriminator that sees it notices a generator whose images are all alike.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPSILON = 1e-8


class MinibatchStddev(nn.Module):
    """(B, C, H, W) → (B, C + 1, H, W): the mean over channels and pixels of the standard deviation in a group.

    Groups have the largest size up to `group` that divides the batch. Image n is in a group with those n + B / size,
    n + 2 B / size and so on, as in the authors' code.
    """

    def __init__(self, group: int = 4):
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        size = next(size for size in range(min(self.group, len(x)), 0, -1) if len(x) % size == 0)
        groups = x.reshape(size, len(x) // size, -1).float()
        spread = (groups.var(0, unbiased=False) + EPSILON).sqrt().mean(1)  # (B / size,)
        extra = spread.repeat(size).to(x.dtype)[:, None, None, None].expand(-1, 1, *x.shape[2:])
        return torch.cat([x, extra], 1)
