"""A translator at work on whole pictures of any size."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Translation:
    """A translated picture, and, where the model attends and it was asked for, where it looked, over what was given."""

    image: Image.Image
    heat: Image.Image | None = None


class Translator:
    """Pictures in one direction. The model is put into evaluation mode by who calls.

    By default the shorter side becomes that of the training; the aspect is kept. What is missing to a multiple that the
    network takes is mirrored at the lower and right edge, and cut off again. A picture is computed as a whole, as its
    norms are over all of it. UsageError for what the model cannot do: keep the size of pictures where it takes one
    alone, show where it looked where it attends to nothing.
    """

    takes_mask = False  # is it told what to fill?

    def __init__(
        self, model: nn.Module, direction: Direction, *, keep_size: bool = False, heat: bool = False, bf16: bool = False
    ):
        self.network, self.direction, self.keep_size, self.bf16 = network_of(model), direction, keep_size, bf16
        self.heat = heat
        size = self.network.config.image_size
        if keep_size and self.network.fixed_size:
            raise UsageError(f"this model takes {size}x{size} pixels alone; leave out the option 'keep_size'")
        if heat and not hasattr(model, "attend"):
            raise UsageError("this model attends to nothing that it could show; leave out the option 'heat'")
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
    def __call__(self, image: Image.Image) -> Translation:
        """A picture that was prepared, to one of the same size, of mode L or RGB. ValueError for a size that the
        network does not take."""
        multiple, size = self.network.multiple, self.network.config.image_size
        height, width = image.height, image.width
        if self.network.fixed_size and (height, width) != (size, size):
            raise ValueError(
                f"it comes to {width}x{height} pixels, and this network takes {size}x{size} alone; crop it to a square"
            )
        below, beside = -height % multiple, -width % multiple
        if below >= height or beside >= width:
            least = multiple // 2 + 1
            raise ValueError(f"it is {width}x{height} pixels, and this network needs {least} a side; enlarge it")
        pixels = pil_to_tensor(image)[None].to(self.device).float() * (2 / TOP) - 1
        pixels = F.pad(pixels, (0, beside, 0, below), mode="reflect")
        with torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            if self.heat:
                attended = cast(Any, self.network).attend(pixels, self.direction)
                found, heat = attended.images, attended.heat[0, 0].float().cpu()
            else:
                found, heat = self.network.translate(pixels, self.direction), None
        made = to_pil_image(to_pixels(found[0, :, :height, :width]))
        return Translation(made, None if heat is None else heat_over(image, heat, (height + below, width + beside)))


def heat_over(image: Image.Image, heat: Tensor, padded: tuple[int, int]) -> Image.Image:
    """A heat map (h, w) over a picture, for which it was computed with pixels more below and beside, to the size
    `padded`: they are cut off it as far as its own pixels go."""
    from orchard.report.pictures import lay_heat  # which loads matplotlib

    (height, width), (h, w) = padded, heat.shape
    own = heat[: max(round(h * image.height / height), 1), : max(round(w * image.width / width), 1)]
    return lay_heat(image, own - own.min())


def translated(model: nn.Module, pixels: Tensor, direction: Direction, batch: int = 8) -> Tensor:
    """Pictures (N, C, H, W) uint8 in one direction, the same on the CPU, some at a time."""
    device, network = next(model.parameters()).device, cast(Any, model)
    with torch.no_grad():
        parts = [
            to_pixels(network.translate(part.to(device).float() * (2 / TOP) - 1, direction))
            for part in torch.split(pixels, batch)
        ]
    return torch.cat(parts)
