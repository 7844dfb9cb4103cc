"""Squeeze and excitation: channels weighed by what the whole map holds (Hu et al. 2017, arXiv:1709.01507)."""

from __future__ import annotations

from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Each channel of (B, channels, H, W) times a gate that is computed from the means of all channels.

    The means pass a hidden layer of `reduced` units with `activation`; `gate` turns the result into factors
    (section 3). Both layers have biases. They are 1x1 convolutions over a map of one pixel, as in the published
    checkpoints.
    """

    def __init__(self, channels: int, reduced: int, activation: nn.Module, gate: nn.Module):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, reduced, 1)
        self.activation = activation
        self.fc2 = nn.Conv2d(reduced, channels, 1)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean((2, 3), keepdim=True)
        weights: Tensor = self.gate(self.fc2(self.activation(self.fc1(squeezed))))
        return x * weights
