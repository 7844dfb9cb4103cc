"""Colours for whole pictures of any size."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from orchard.models.translation.cic import CIC
from orchard.models.translation.contract import Direction
from orchard.nn.lab import lab_to_rgb, rgb_to_lab
from orchard.tasks.image_to_image.translating import TOP, network_of
from orchard.tasks.super_resolution.pipeline import read_image


def to_grey(images: Tensor) -> Tensor:
    """(..., 3, H, W) uint8 to grey of the same lightness, (..., 1, H, W) uint8."""
    lab = rgb_to_lab(images.float() / TOP)
    grey = lab_to_rgb(torch.cat([lab[..., :1, :, :], torch.zeros_like(lab[..., 1:, :, :])], -3))
    return (grey[..., :1, :, :] * TOP).round().to(torch.uint8)


class Painter:
    """Pictures in colours, each with its own lightness at its own size. The model is put into evaluation mode by who
    calls.

    Colours are computed with the shorter side at that of the training, and enlarged; with `keep_size` at the picture's
    own, to the nearest multiple that the network takes.
    """

    takes_mask = False

    def __init__(self, model: nn.Module, direction: Direction, *, keep_size: bool = False, bf16: bool = False):
        self.network, self.bf16 = network_of(model), bf16
        self.side = None if keep_size else self.network.config.image_size
        self.device = next(model.parameters()).device

    def read(self, item: Any, mask: Any = None) -> Image.Image | str:
        """A picture, or what is wrong with it."""
        return read_image(item)

    def prepare(self, image: Image.Image) -> Image.Image:
        """The picture without its colours."""
        return image if image.mode == "L" else to_pil_image(to_grey(pil_to_tensor(image)))

    @torch.no_grad()
    def __call__(self, image: Image.Image) -> Image.Image:
        """A picture of mode L to one of RGB of the same size."""
        grey = pil_to_tensor(image)[None].to(self.device).float() / TOP
        lightness = rgb_to_lab(grey.expand(-1, 3, -1, -1))[:, :1]
        scale = 1.0 if self.side is None else self.side / min(image.size)
        multiple = self.network.multiple
        size = [max(1, round(side * scale / multiple)) * multiple for side in (image.height, image.width)]
        small = F.interpolate(lightness, size, mode="bilinear", antialias=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            ab = cast(CIC, self.network).colours(small)
        ab = F.interpolate(ab, lightness.shape[2:], mode="bilinear")
        colours = lab_to_rgb(torch.cat([lightness, ab], 1))[0]
        return to_pil_image((colours * TOP).round().to(torch.uint8).cpu())
