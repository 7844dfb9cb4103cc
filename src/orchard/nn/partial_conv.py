"""Convolutions of what is known of an image (Liu et al. 2018, arXiv:1804.07723, section 3.1).

Only known values enter. The sum is weighed up by how many of them the window has, and a place is known from then on
where its window had any. What lies beyond the border is unknown.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PartialConv2d(nn.Module):
    """x (B, C, H, W) and known (B or 1, 1 or C, H, W), 1 or 0, to the same of what comes out, known (B or 1, 1, h, w).

    The sum over a window is multiplied by the window's size over the number of known values in it (equation 1); where
    there are none the output is 0, without bias.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, *, bias: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias)
        self.window = inputs * kernel**2  # values

    @property
    def gain(self) -> float:
        """What is divided by the number of known values."""
        return float(self.window)

    def counts(self, known: Tensor) -> Tensor:
        """How many known values each window has, (B or 1, 1, h, w). By pooling, which autocast leaves in float32:
        numbers above 256 have no place in bfloat16."""
        kernel, stride, padding = self.conv.kernel_size[0], self.conv.stride[0], int(self.conv.padding[0])
        share = F.avg_pool2d(known.mean(1, keepdim=True), kernel, stride, padding)
        return (share * self.window).round()

    def forward(self, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            counts = self.counts(known)
            seen = counts.clamp(0, 1)
            ratio = seen * (self.gain / counts.clamp(min=1))
        y = self.conv(x * known)
        if self.conv.bias is None:
            return y * ratio, seen
        bias = self.conv.bias.view(1, -1, 1, 1)
        return (y - bias) * ratio + bias * seen, seen


class MeanPartialConv2d(PartialConv2d):
    """The same divided by the number of known values alone, as naoto0804's code has it: its weights are larger."""

    @property
    def gain(self) -> float:
        return 1.0
