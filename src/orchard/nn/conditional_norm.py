"""Conditional batch norm: the gain and the bias of every channel follow from a condition, such as a class.

Dumoulin et al. 2016 (arXiv:1610.07629); de Vries et al. 2017 (arXiv:1707.00683, equation 4), whose gain is a difference
from one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOMENTUM = 0.1  # share of a batch in the running mean and variance


class ConditionalBatchNorm2d(nn.Module):
    """(B, C, H, W) and a condition → (B, C, H, W): x̂ (1 + gain(condition)) + bias(condition).

    `gain` and `bias` are modules from the condition to (B, C): embeddings of labels (B,), or linear layers of vectors
    (B, D).
    """

    running_mean: Tensor  # (C,)
    running_var: Tensor  # (C,)

    def __init__(self, channels: int, gain: nn.Module, bias: nn.Module, *, eps: float):
        super().__init__()
        self.gain = gain
        self.bias = bias
        self.eps = eps
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain, bias = self.gain(condition)[:, :, None, None], self.bias(condition)[:, :, None, None]
        x = F.batch_norm(
            x, self.running_mean, self.running_var, training=self.training, momentum=MOMENTUM, eps=self.eps
        )
        return torch.addcmul(bias, x, 1 + gain)
