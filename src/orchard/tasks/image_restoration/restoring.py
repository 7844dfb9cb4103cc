"""A network at work on whole images: pixels to its values and back, piece by piece where an image is large."""

from __future__ import annotations

from contextlib import nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import rgb_to_grayscale

from orchard.inference.tiling import in_pieces
from orchard.models.restoration.contract import RestorationNetwork
from orchard.tasks.image_restoration.degradation import TOP

TILE = 256  # pixels a side of a piece


def network_of(model: nn.Module) -> RestorationNetwork:
    return cast(RestorationNetwork, model)


def in_channels_of(images: Tensor, model: nn.Module) -> Tensor:
    """RGB images (B, 3, H, W) uint8 as the network learns them: as they are, or their grey, rounded to levels."""
    values = images.float()
    return rgb_to_grayscale(values).round() if network_of(model).channels == 1 else values


def restore(model: nn.Module, images: Tensor, sigma: Tensor | None) -> Tensor:
    """Images (B, C, H, W) from 0 to 255, C that of the network, to clean ones, neither rounded nor cut.

    `sigma` (B,) is the standard deviation of their noise where it is known.
    """
    network = network_of(model)
    low, high = network.value_range
    unit = (high - low) / TOP
    found = network.restore(images * unit + low, None if sigma is None else sigma * unit)
    return (found.float() - low) / unit


class Restorer:
    """Restores images with a network, which is put into evaluation mode by who calls.

    A network of one channel restores each channel of a colour image by itself. One of colours is given a grey image as
    a colour one, and the mean of its channels is taken. Images larger than `tile` are computed in pieces.
    """

    def __init__(self, model: nn.Module, *, tile: int = TILE, bf16: bool = False):
        self.model, self.tile, self.bf16 = model, tile, bf16
        self.network = network_of(model)
        self.device = next(model.parameters()).device

    @torch.no_grad()
    def __call__(self, image: Tensor, sigma: float | None = None) -> Tensor:
        """An image (C, H, W) from 0 to 255, of any C from 1 to 3, to one in uint8 on the CPU."""
        strength = None if sigma is None else torch.tensor([sigma], device=self.device)

        def compute(region: Tensor) -> Tensor:
            pixels = region.to(self.device).float()
            alone = self.network.channels == 1
            images = pixels[:, None] if alone else pixels.expand(3, -1, -1)[None]
            with torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext():
                found = restore(self.model, images, None if strength is None else strength.expand(len(images)))
            found = found[:, 0] if alone else found[0]
            if len(pixels) < len(found):
                found = found.mean(0, keepdim=True)
            return found.round().clamp(0, TOP).to(torch.uint8)

        return in_pieces(image, compute, tile=self.tile, radius=self.network.receptive_radius)
