"""Batch norm whose gain and bias follow from a condition, such as a class, and the same without a condition.

Dumoulin et al. 2016 (arXiv:1610.07629); de Vries et al. 2017 (arXiv:1707.00683, equation 4), whose gain is a difference
from one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOMENTUM = 0.1  # share of a batch in the running mean and variance


class Standardise(nn.Module):
    """What both norms have in common: (x - mean) / std over a batch (B, C, H, W), or, in evaluation, over all so far.

    There is no count of batches, which torch's own has and official files of BigGAN have not.
    """

    running_mean: Tensor  # (C,)
    running_var: Tensor  # (C,)

    def __init__(self, channels: int, *, eps: float):
        super().__init__()
        self.eps = eps
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def standardised(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """With a gain and a bias of each channel, (C,)."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, weight, bias, self.training, momentum=MOMENTUM, eps=self.eps
        )


class UncountedBatchNorm2d(Standardise):
    """Batch norm with a gain and a bias of its own."""

    def __init__(self, channels: int, *, eps: float):
        super().__init__(channels, eps=eps)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.standardised(x, self.weight, self.bias)


class ConditionalBatchNorm2d(Standardise):
    """(B, C, H, W) and a condition → (B, C, H, W): x̂ (1 + gain(condition)) + bias(condition).

    `gain` and `bias` are modules from the condition to (B, C): embeddings of labels (B,), or linear layers of vectors
    (B, D).
    """

    def __init__(self, channels: int, gain: nn.Module, bias: nn.Module, *, eps: float):
        super().__init__(channels, eps=eps)
        self.gain = gain
        self.bias = bias

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain, bias = self.gain(condition)[:, :, None, None], self.bias(condition)[:, :, None, None]
        return torch.addcmul(bias, self.standardised(x), 1 + gain)
