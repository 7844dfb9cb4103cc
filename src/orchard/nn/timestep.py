"""How a network learns at which noise level it works: sinusoids of the timestep, and where they enter a block."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def check_timesteps(timesteps: Tensor, batch: int) -> None:
    """Raise ValueError unless `timesteps` is (batch,), of integers or floats."""
    if timesteps.shape != (batch,):
        raise ValueError(f"expected one timestep for each image, ({batch},), got {tuple(timesteps.shape)}")


def sinusoids(timesteps: Tensor, width: int, *, order: Literal["sin_cos", "cos_sin"], endpoint: bool) -> Tensor:
    """Sines and cosines of (B,) timesteps at width / 2 frequencies, (B, width) float32.

    The frequencies are a geometric sequence from 1 to 1 / 10,000, with the last one in it (`endpoint`) or not. Both
    forms are in use, and weights learned with one do not suit the other (Ho et al. 2020; Vaswani et al. 2017, section
    3.5).
    """
    half = width // 2
    slope = -math.log(10_000) / (half - 1 if endpoint else half)
    frequencies = (slope * torch.arange(half, dtype=torch.float32, device=timesteps.device)).exp()
    angles = timesteps.float()[:, None] * frequencies
    halves = (angles.sin(), angles.cos()) if order == "sin_cos" else (angles.cos(), angles.sin())
    return torch.cat(halves, dim=1)


class TimestepEmbedding(nn.Module):
    """Sinusoids of the timestep, then two linear layers with swish between, (B,) → (B, hidden)."""

    def __init__(self, width: int, hidden: int, *, order: Literal["sin_cos", "cos_sin"], endpoint: bool):
        super().__init__()
        self.width = width
        self.order: Literal["sin_cos", "cos_sin"] = order
        self.endpoint = endpoint
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, hidden)

    def forward(self, timesteps: Tensor) -> Tensor:
        x = sinusoids(timesteps, self.width, order=self.order, endpoint=self.endpoint)
        return self.fc2(F.silu(self.fc1(x)))


class ShiftThenNorm(nn.Module):
    """The embedding (B, E) is added to every pixel before the norm, (B, C, H, W) → (B, C, H, W) (Ho et al. 2020)."""

    def __init__(self, channels: int, embedding: int, norm: nn.Module):
        super().__init__()
        self.projection = nn.Linear(embedding, channels)
        self.norm = norm

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.norm(x + self.projection(F.silu(embedding))[..., None, None])


class NormThenScaleShift(nn.Module):
    """The embedding (B, E) scales and shifts what the norm gives, (B, C, H, W) → (B, C, H, W).

    Nichol & Dhariwal 2021, section 2.2; later work calls it adaptive group normalisation.
    """

    def __init__(self, channels: int, embedding: int, norm: nn.Module):
        super().__init__()
        self.projection = nn.Linear(embedding, 2 * channels)
        self.norm = norm

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.projection(F.silu(embedding))[..., None, None].chunk(2, dim=1)
        return self.norm(x) * (1 + scale) + shift
