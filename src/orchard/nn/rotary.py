"""Rotary positions: features are turned by angles that grow with the place (Su et al. 2021, arXiv:2104.09864)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def word_angles(places: Tensor, width: int, theta: float = 10000.0) -> Tensor:
    """Angles (N, 2 · (width // 2)) of places (N,) in a text: each pair of features has a frequency, θ^(-2i / width)."""
    frequencies = theta ** -(torch.arange(0, 2 * (width // 2), 2).float() / width)
    return (places[:, None] * frequencies).repeat_interleave(2, dim=1)


def pixel_angles(places: Tensor, width: int, fastest: float = 5.0) -> Tensor:
    """Angles (N, 2 · (width // 2)) of places (N,) from -1 to 1 along an axis: frequencies from π to `fastest` · π."""
    frequencies = torch.linspace(1.0, fastest, width // 2) * torch.pi
    return (places[:, None] * frequencies).repeat_interleave(2, dim=1)


def turn_pairs(x: Tensor, angles: Tensor) -> Tensor:
    """Turn neighbouring pairs of the first R features of x (..., T, D) by angles (T, R); the other features stay."""
    turned, rest = x[..., : angles.shape[-1]], x[..., angles.shape[-1] :]
    quarter_on = torch.stack([-turned[..., 1::2], turned[..., ::2]], dim=-1).flatten(-2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)  # of exact angles: they run into the thousands
    return torch.cat([turned * cos + quarter_on * sin, rest], dim=-1)


class Rotary(nn.Module):
    """Angles (L, R) of every place; `turn` is what `SelfAttention` takes. Values are turned as queries and keys are."""

    angles: Tensor

    def __init__(self, angles: Tensor):
        super().__init__()
        self.register_buffer("angles", angles)

    def turn(self, q: Tensor, k: Tensor, v: Tensor, places: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, heads, T, d) of tokens at `places`, or at 0, 1, ... where none are given."""
        angles = self.angles[: q.shape[2]] if places is None else self.angles[places]
        return turn_pairs(q, angles), turn_pairs(k, angles), turn_pairs(v, angles)
