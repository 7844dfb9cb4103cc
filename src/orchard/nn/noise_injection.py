"""Noise that a generator adds to its maps (Karras et al. 2018, arXiv:1812.04948, section 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NoiseInjection(nn.Module):
    """x + strength · noise, (B, C, S, S), with one noise (B or 1, 1, S, S) for all channels; the strength is learned.

    Args:
        side: S.
        strengths: the strength's shape, (1,) for all channels together, (C, 1, 1) for each its own.
        gain: scales the strength (equalised learning rate).
        seed: what the stored noise follows from; it is then no part of the weights.

    Where none is given, it is drawn anew in training and is always the same otherwise: that stored with the weights.
    """

    stored: Tensor

    def __init__(self, side: int, strengths: tuple[int, ...] = (1,), gain: float = 1.0, seed: int | None = None):
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(strengths))
        self.gain = gain
        shape = (1, 1, side, side)
        if seed is None:
            self.register_buffer("stored", torch.randn(shape))
        else:
            fixed = torch.randn(shape, generator=torch.Generator().manual_seed(seed), device="cpu")
            self.register_buffer("stored", fixed.to(self.strength.device), persistent=False)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is None and self.training:
            noise = torch.randn(len(x), 1, *x.shape[2:], device=x.device)
        strength = self.strength if self.gain == 1 else self.strength * self.gain
        return x + (strength * (self.stored if noise is None else noise)).to(x.dtype)
