"""LayerScale: a learned gain for each feature of a branch (Touvron et al. 2021, arXiv:2103.17239, section 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """x times a gain for each feature, (..., D) → (..., D); gains begin at `start`, small in deep networks."""

    def __init__(self, width: int, start: float):
        super().__init__()
        self.gain = nn.Parameter(torch.full((width,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain
