"""Rotary positions: features are rotated by angles that grow with the position (Su et al. 2021, arXiv:2104.09864)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def word_angles(positions: Tensor, width: int, theta: float = 10000.0) -> Tensor:
    """Angles (N, 2 · (width // 2)) of positions (N,) in a text; the frequency of pair i is θ^(-2i / width)."""
    frequencies = theta ** -(torch.arange(0, 2 * (width // 2), 2).float() / width)
    return (positions[:, None] * frequencies).repeat_interleave(2, dim=1)


def pixel_angles(positions: Tensor, width: int, fastest: float = 5.0) -> Tensor:
    """Angles (N, 2 · (width // 2)) of positions (N,) from -1 to 1 along an axis; frequencies: π to `fastest` · π."""
    frequencies = torch.linspace(1.0, fastest, width // 2) * torch.pi
    return (positions[:, None] * frequencies).repeat_interleave(2, dim=1)


def apply_rotary(x: Tensor, angles: Tensor) -> Tensor:
    """Turn neighbouring pairs of the first R features of x (..., T, D) by angles (T, R); the other features stay."""
    turned, rest = x[..., : angles.shape[-1]], x[..., angles.shape[-1] :]
    quarter_on = torch.stack([-turned[..., 1::2], turned[..., ::2]], dim=-1).flatten(-2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)  # of exact angles: they run into the thousands
    return torch.cat([turned * cos + quarter_on * sin, rest], dim=-1)


class Rotary(nn.Module):
    """Angles (L, R) of every position; `encode` is the `position_encoding` of `Attention`. Values are rotated too."""

    angles: Tensor

    def __init__(self, angles: Tensor):
        super().__init__()
        self.register_buffer("angles", angles)

    def encode(self, q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, heads, T, d) of tokens at `positions`, or at 0, 1, ... where none are given."""
        angles = self.angles[: q.shape[2]] if positions is None else self.angles[positions]
        return apply_rotary(q, angles), apply_rotary(k, angles), apply_rotary(v, angles)
