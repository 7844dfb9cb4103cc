"""Equalised learning rate: layers whose weights are of unit variance, scaled as they are used.

Karras et al. 2017 (arXiv:1710.10196, section 4.1). What He's initialisation would do to the weights once is done in
every pass, so that an optimizer that normalises gradients moves all layers at the same relative speed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EqualisedLinear(nn.Module):
    """(..., inputs) → (..., outputs).

    Args:
        bias: what each bias starts at.
        lr_multiplier: how fast the layer learns beside others: its weights start larger, and are scaled back.
        gain: of the weights; √2 makes up for a rectifier that follows.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: float = 0.0, lr_multiplier: float = 1.0, gain: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr_multiplier))
        self.lr_multiplier = lr_multiplier
        self.gain = gain * lr_multiplier / inputs**0.5

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.gain, self.bias * self.lr_multiplier)


class EqualisedConv2d(nn.Module):
    """A convolution, (B, inputs, H, W) → (B, outputs, H', W'); `gain` as above."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0, bias: bool = True,
        gain: float = 1.0,
    ):  # fmt: skip
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.gain = gain * (inputs * kernel**2) ** -0.5
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.gain, self.bias, self.stride, self.padding)
