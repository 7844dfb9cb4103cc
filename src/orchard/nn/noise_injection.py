"""Noise that a generator adds to its maps (Karras et al. 2018, arXiv:1812.04948, section 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NoiseInjection(nn.Module):
    """x + strength · noise, (B, C, S, S), with one noise (B or 1, 1, S, S) for all channels; the strength is learned.

    `strengths` is its shape: (1,) for one, (C, 1, 1) for one of each channel. `gain` scales it (equalised learning rate).

    Where none is given, it is drawn anew in training and is always the same otherwise: that stored with the weights.
    """

    stored: Tensor

    def __init__(self, side: int, strengths: tuple[int, ...] = (1,), gain: float = 1.0):
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(strengths))
        self.gain = gain
        self.register_buffer("stored", torch.randn(1, 1, side, side))

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is None and self.training:
            noise = torch.randn(len(x), 1, *x.shape[2:], device=x.device)
        strength = self.strength if self.gain == 1 else self.strength * self.gain
        return x + (strength * (self.stored if noise is None else noise)).to(x.dtype)
