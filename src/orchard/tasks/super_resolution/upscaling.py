"""A network at work on whole images: pixels to its values and back, piece by piece where an image is large."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor, rgb_to_grayscale, to_pil_image

from orchard.data.pictures import MAX_PIXELS
from orchard.data.resolutions import enlarge
from orchard.errors import UsageError
from orchard.inference.tiling import in_pieces
from orchard.models.restoration.contract import SuperResolver
from orchard.tasks.super_resolution.metrics import TOP, luma

TILE = 256  # pixels a side of a piece
BLACK_TO_WHITE = 235 - 16  # of luma; of a grey image it is all 255


def network_of(model: nn.Module) -> SuperResolver:
    """The model as what it is. Raises UsageError for one whose tasks all leave images their size."""
    network = cast(SuperResolver, model)
    if not network.scales:
        raise UsageError("none of the model's tasks enlarges images; from Python, model.perform(images, task) has them")
    return network


def self_ensemble(upscale: Callable[..., Tensor], *images: Tensor) -> Tensor:
    """The mean over the eight ways to turn and mirror images (B, C, h, w), each result turned back (Lim et al. 2017,
    section 3.5). Several are turned alike."""
    results = []
    for turns in range(4):
        for mirror in (False, True):
            turned = [image.rot90(turns, (2, 3)) for image in images]
            large = upscale(*(image.flip(3) if mirror else image for image in turned))
            results.append((large.flip(3) if mirror else large).rot90(-turns, (2, 3)))
    return torch.stack(results).mean(0)


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

    An image larger than `tile` is computed in pieces without seams. A network that sees everything is given the whole,
    and goes through it by itself. With `ensemble` each piece is the mean over eight ways to turn and mirror it.
    """

    def __init__(self, model: nn.Module, scale: int, *, tile: int = TILE, bf16: bool = False, ensemble: bool = False):
        self.model, self.scale, self.tile, self.bf16, self.ensemble = model, scale, tile, bf16, ensemble
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
        beside = () if reference is None else (pil_to_tensor(reference.convert("RGB"))[None].to(self.device),)
        found = in_pieces(
            pil_to_tensor(image), partial(self._compute, beside=beside), tile=self.tile,
            radius=self.network.receptive_radius, factor=1 if self.network.enlarged else self.scale,
        )  # fmt: skip
        return to_pil_image(found)

    def _compute(self, pixels: Tensor, beside: tuple[Tensor, ...]) -> Tensor:
        """A region of an image, (C, h, w) uint8, enlarged; a reference may lie beside it."""
        region = pixels[None].to(self.device)
        given = region.expand(-1, 3, -1, -1) if self.network.channels == 3 else region
        images = [to_network(x, self.model) for x in (given, *beside)]

        def upscale(image: Tensor, *reference: Tensor) -> Tensor:
            return cast(Any, self.model).upscale(image, self.scale, *reference)  # type: ignore[no-any-return]

        with torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            values = self_ensemble(upscale, *images) if self.ensemble else upscale(*images)
        return from_network(values, region, self.model)[0]
