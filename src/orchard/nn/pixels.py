"""Pixels as colours of a palette: the nearest of them, and the loss of a model that is asked for them."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor


def even_colours(count: int, channels: int) -> Tensor:
    """A palette that knows no images: `count` colours of an even grid over [-1, 1], (count, channels) float32."""
    levels = next(n for n in itertools.count(1) if n**channels >= count)
    cells = torch.linspace(0, levels**channels - 1, count).round().long()
    places = torch.stack([cells // levels**n % levels for n in reversed(range(channels))], 1)
    return torch.linspace(-1, 1, levels)[places]


def nearest_colours(images: Tensor, colours: Tensor) -> Tensor:
    """The nearest of `colours` (K, C) to every pixel, the first of equals: (B, C, H, W) to (B, H W) int64."""
    # bf16 cannot tell neighbours of a fine palette apart. The meta device, on which sizes are counted, has no autocast.
    if not images.is_meta and torch.is_autocast_enabled(images.device.type):
        with torch.autocast(images.device.type, enabled=False):
            return nearest_colours(images, colours)
    colours = colours.float()
    pixels = images.float().flatten(2).transpose(1, 2)  # (B, H W, C)
    return (colours.square().sum(1) - 2 * pixels @ colours.T).argmin(-1)


def pixel_nats(logits: Tensor, colours: Tensor) -> Tensor:
    """-log p of every pixel, (B, T), by logits (B, T, K) for the `colours` (B, T)."""
    nats = F.cross_entropy(logits.float().flatten(0, 1), colours.flatten(), reduction="none")
    return nats.view(colours.shape)


def image_means(values: Tensor, masked: Tensor | None) -> Tensor:
    """The mean of each image's values (B, T), of all pixels or of those that are masked: (B,)."""
    return values.mean(1) if masked is None else (values * masked).sum(1) / masked.sum(1).clamp(min=1)
