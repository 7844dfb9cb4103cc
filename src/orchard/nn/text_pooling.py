"""One vector for a text out of those of its tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean of x (B, T, D) over tokens, where mask (B, T) is true → (B, D)."""
    weights = mask.to(x.dtype)[:, :, None]
    return (x * weights).sum(1) / weights.sum(1).clamp_min(1)


def masked_max(x: Tensor, mask: Tensor) -> Tensor:
    """The maximum of x (B, T, D) over tokens, where mask (B, T) is true → (B, D)."""
    return x.masked_fill(~mask[:, :, None], torch.finfo(x.dtype).min).amax(1)
