"""A network at work on whole images: pixels to its values and back, piece by piece where an image is large."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor, rgb_to_grayscale, to_pil_image

from orchard.data.pictures import MAX_PIXELS
from orchard.data.resolutions import enlarge
from orchard.models.restoration.contract import SuperResolver
from orchard.tasks.super_resolution.metrics import TOP, luma

TILE = 256  # pixels a side of a piece
BLACK_TO_WHITE = 235 - 16  # of luma; of a grey image it is all 255


def network_of(model: nn.Module) -> SuperResolver:
    return cast(SuperResolver, model)


def to_network(pixels: Tensor, model: nn.Module) -> Tensor:
    """Images (B, C, H, W) uint8 to what the network takes: RGB in its range of values, or luma over 255."""
    network = network_of(model)
    if network.channels == 1:
        return luma(pixels.float()) / TOP
    low, high = network.value_range
    return pixels.float() * ((high - low) / TOP) + low


def from_network(values: Tensor, pixels: Tensor, model: nn.Module) -> Tensor:
    """What the network gave for `pixels` (B, C, h, w) uint8, to 8 bits of as many channels.

    Luma goes into the image that it was taken from, whose colours stay: a change of luma is the same change, over its
    share of the range, of red, green and blue.
    """
    network = network_of(model)
    if network.channels == 1:
        change = values.float() * TOP - luma(pixels.float())
        colours = pixels.float() + change * (TOP / BLACK_TO_WHITE if pixels.shape[1] == 3 else 1.0)
    else:
        low, high = network.value_range
        colours = (values.float() - low) * (TOP / (high - low))
        if pixels.shape[1] == 1:
            colours = rgb_to_grayscale(colours)
    return colours.round().clamp(0, TOP).to(torch.uint8)


class Upscaler:
    """Enlarges images by `scale` with a network, which is put into evaluation mode by who calls.

    An image larger than `tile` is computed in pieces that overlap by what the network sees around a pixel, so that each
    is what the whole would give there; memory does not grow with the image but for its pixels.
    """

    def __init__(self, model: nn.Module, scale: int, *, tile: int = TILE, bf16: bool = False):
        self.model, self.scale, self.tile, self.bf16 = model, scale, tile, bf16
        self.network = network_of(model)
        self.device = next(model.parameters()).device

    @torch.no_grad()
    def __call__(self, image: Image.Image, reference: Image.Image | None = None) -> Image.Image:
        """An image of mode L or RGB to one of the same mode, with a reference for a network that takes one. ValueError
        where it would be too large to be read."""
        width, height = image.width * self.scale, image.height * self.scale
        if width * height > MAX_PIXELS:
            raise ValueError(
                f"{width}x{height} pixels are more than the {MAX_PIXELS // 10**6} million that are read again; cut it"
            )
        if self.network.enlarged:
            image = enlarge(image, self.scale)
        pixels = pil_to_tensor(image)
        factor = 1 if self.network.enlarged else self.scale
        more = {}
        if reference is not None:
            beside = pil_to_tensor(reference.convert("RGB"))[None].to(self.device)
            more["reference"] = to_network(beside, self.model)
        result = np.empty((len(pixels), height, width), np.uint8)
        for rows in self._pieces(image.height):
            for columns in self._pieces(image.width):
                self._fill(result, pixels, rows, columns, factor, more)
        return to_pil_image(torch.from_numpy(result))

    def _pieces(self, side: int) -> list[tuple[int, int]]:
        """Beginnings and ends along a side; the whole side where the network sees everything."""
        tile = side if self.network.receptive_radius is None else self.tile
        return [(start, min(start + tile, side)) for start in range(0, side, tile)]

    def _fill(
        self, result: np.ndarray, pixels: Tensor, rows: tuple[int, int], columns: tuple[int, int], factor: int,
        more: Mapping[str, Tensor],
    ) -> None:  # fmt: skip
        """Compute one piece of `pixels` (C, H, W) with what is around it, and lay it into the result."""
        radius = self.network.receptive_radius or 0
        (top, bottom), (left, right) = (
            (max(start - radius, 0), min(end + radius, side))
            for (start, end), side in zip((rows, columns), pixels.shape[1:], strict=True)
        )
        region = pixels[:, top:bottom, left:right][None].to(self.device)
        given = region.expand(-1, 3, -1, -1) if self.network.channels == 3 else region
        values = self._values(to_network(given, self.model), more)
        found = from_network(values, region, self.model)[0].cpu().numpy()
        inside = found[
            :,
            (rows[0] - top) * factor : (rows[1] - top) * factor,
            (columns[0] - left) * factor : (columns[1] - left) * factor,
        ]
        result[:, rows[0] * factor : rows[1] * factor, columns[0] * factor : columns[1] * factor] = inside

    def _values(self, images: Tensor, more: Mapping[str, Tensor]) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            return cast(Any, self.model).upscale(images, self.scale, **more)  # type: ignore[no-any-return]
