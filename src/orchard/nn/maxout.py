"""Maxout: units that are the largest of several linear ones (Goodfellow et al. 2013, arXiv:1302.4389)."""

from __future__ import annotations

from torch import Tensor, nn


class Maxout(nn.Module):
    """(B, inputs) → (B, units), each the maximum of `pieces` linear functions of all inputs (section 3)."""

    def __init__(self, inputs: int, units: int, pieces: int):
        super().__init__()
        self.pieces = (units, pieces)
        self.linear = nn.Linear(inputs, units * pieces)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(-1, self.pieces).amax(-1)
