"""Pixel norm: every position's vector of channels is brought to unit mean square (Karras et al. 2017, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-8


def pixel_norm(x: Tensor) -> Tensor:
    """(B, C, ...) → the same shape, each of whose vectors of C numbers has a mean square of one."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + EPSILON)
