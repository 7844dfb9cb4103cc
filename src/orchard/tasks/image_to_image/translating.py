"""A translator at work on whole pictures of any size."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from orchard.data.pictures import plain
from orchard.errors import UsageError
from orchard.models.translation.contract import Direction, ImageTranslator
from orchard.tasks.super_resolution.pipeline import read_image

TOP = 255.0


def network_of(model: nn.Module) -> ImageTranslator:
    """The model as what it is."""
    return cast(ImageTranslator, model)


def choose_direction(model: nn.Module, trained: str, asked: str | None) -> Direction:
    """The direction of an answer; UsageError for one that the model did not learn.

    What learned from pairs knows one, `trained`, and calls what it is given A.
    """
    known = network_of(model).directions
    if len(known) == 1 and asked not in (None, trained):
        raise UsageError(f"this model was trained {trained}; leave out the option 'direction'")
    return known[0] if len(known) == 1 or asked is None else cast(Direction, asked)


def to_pixels(images: Tensor) -> Tensor:
    """From [-1, 1] to uint8 on the CPU."""
    return ((images.float() + 1) * (TOP / 2)).round().clamp(0, TOP).to(torch.uint8).cpu()


def to_picture(image: Tensor) -> Image.Image:
    """An image (C, H, W) uint8 for people: of mode L or RGB, white where a fourth channel says that it is unknown."""
    picture = to_pil_image(image)
    if picture.mode != "RGBA":
        return picture
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


class Translator:
    """Pictures in one direction. The model is put into evaluation mode by who calls.

    By default the shorter side becomes that of the training; the aspect is kept. What is missing to a multiple that the
    network takes is mirrored at the lower and right edge, and cut off again. A picture is computed as a whole, as its
    norms are over all of it.
    """

    takes_mask = False  # is it told what to fill?

    def __init__(self, model: nn.Module, direction: Direction, *, keep_size: bool = False, bf16: bool = False):
        self.network, self.direction, self.keep_size, self.bf16 = network_of(model), direction, keep_size, bf16
        self.device = next(model.parameters()).device

    def read(self, item: Any, mask: Any = None) -> Image.Image | str:
        """A picture, or what is wrong with it."""
        return read_image(item)

    def prepare(self, image: Image.Image) -> Image.Image:
        """The picture as it is translated, in the mode that the network takes."""
        image = plain(image, self.network.channels(self.direction[0]))
        if self.keep_size:
            return image
        scale = self.network.config.image_size / min(image.size)
        return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)

    @torch.no_grad()
    def __call__(self, image: Image.Image) -> Image.Image:
        """A picture that was prepared, to one of the same size, of mode L or RGB. ValueError where it is too small."""
        multiple = self.network.multiple
        height, width = image.height, image.width
        below, beside = -height % multiple, -width % multiple
        if below >= height or beside >= width:
            least = multiple // 2 + 1
            raise ValueError(f"it is {width}x{height} pixels, and this network needs {least} a side; enlarge it")
        pixels = pil_to_tensor(image)[None].to(self.device).float() * (2 / TOP) - 1
        pixels = F.pad(pixels, (0, beside, 0, below), mode="reflect")
        with torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            found = self.network.translate(pixels, self.direction)
        return to_pil_image(to_pixels(found[0, :, :height, :width]))


def translated(model: nn.Module, pixels: Tensor, direction: Direction, batch: int = 8) -> Tensor:
    """Pictures (N, C, H, W) uint8 in one direction, the same on the CPU, some at a time."""
    device, network = next(model.parameters()).device, cast(Any, model)
    with torch.no_grad():
        parts = [
            to_pixels(network.translate(part.to(device).float() * (2 / TOP) - 1, direction))
            for part in torch.split(pixels, batch)
        ]
    return torch.cat(parts)
