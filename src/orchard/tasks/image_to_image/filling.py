"""Holes of whole pictures of any size, filled by a network or by spreading what is known around them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from orchard.data.pictures import FAULTS, GREY_MODES, fault, plain
from orchard.inference.image_files import opened_image
from orchard.models.translation.contract import Direction
from orchard.models.translation.inpainting import COLOURS, Inpainter
from orchard.tasks.image_to_image.translating import TOP, to_pixels

HALF = 128  # a mask marks what is at least so light; what is less opaque than that is a hole


def spread(given: Tensor) -> Tensor:
    """A picture with a hole (4, H, W) uint8, filled by means of what is known around, (3, H, W) uint8.

    Means of known pixels over squares of 2, 4, 8, ... pixels: each hole takes those of the smallest squares that know
    any, which are brought up bilinearly.
    """
    known = (given[COLOURS:] > 0).float()[None]
    levels = [(given[None, :COLOURS].float(), known)]
    while float(levels[-1][1].min()) == 0 and max(levels[-1][1].shape[2:]) > 1:
        x, k = levels[-1]
        pad = (0, k.shape[3] % 2, 0, k.shape[2] % 2)
        total, count = (F.avg_pool2d(F.pad(one, pad), 2) for one in (x * k, k))
        levels.append((total / count.clamp(min=1e-6), (count > 0).float()))
    x = levels.pop()[0]
    for finer, k in reversed(levels):
        x = finer.where(k > 0, F.interpolate(x, finer.shape[2:], mode="bilinear"))
    return x[0].round().clamp(0, TOP).to(torch.uint8)


class Filler:
    """Pictures with holes, filled. The model is put into evaluation mode by who calls.

    Known pixels come out as they are. By default the holes are computed at the scale of the training, `side` pixels of
    the shorter side, and enlarged; with `keep_size` at the picture's own. What is missing to a multiple that the
    network takes is unknown to it.
    """

    takes_mask = True

    def __init__(
        self, model: nn.Module, direction: Direction, *, keep_size: bool = False, bf16: bool = False,
        side: int | None = None,
    ):  # fmt: skip
        self.network, self.direction, self.bf16 = cast(Inpainter, model), direction, bf16
        self.side = None if keep_size else side or self.network.config.image_size
        self.device = next(model.parameters()).device

    def read(self, item: Any, mask: Any = None) -> Image.Image | str:
        """A picture with transparent holes, of mode LA or RGBA: its own, and those that a mask of its size shows in
        white. Or what is wrong with it."""
        try:
            with opened_image(item) as picture:
                channels = 1 if picture.mode in GREY_MODES else COLOURS
                opaque = picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None
                found = plain(picture.convert("RGB") if opaque else picture, channels)
                found.load()
        except FAULTS as error:
            return fault(error)
        known = Image.new("L", found.size, 255) if opaque is None else opaque.point(lambda level: 255 * (level >= HALF))
        if mask is not None:
            try:
                with opened_image(mask) as picture:
                    marked = plain(picture, 1).point(lambda level: 255 * (level >= HALF))
            except FAULTS as error:
                return f"its mask: {fault(error)}"
            if marked.size != found.size:
                sizes = f"{marked.width}x{marked.height} pixels, the picture {found.width}x{found.height}"
                return f"its mask is {sizes}; both must be of one size"
            known.paste(0, mask=marked)
        low, high = known.getextrema()
        if low:
            what = "its mask marks no pixel" if mask is not None else "it has no transparent pixel"
            return f"{what}, so there is nothing to fill; name a mask in white on black, as with --mask"
        if not high:
            return "all of it is to be filled, and nothing is known; leave some pixels out of the mask"
        blank = Image.new(found.mode, found.size, "white")
        blank.paste(found, mask=known)
        blank.putalpha(known)
        return blank

    def prepare(self, image: Image.Image) -> Image.Image:
        """The picture as it is, as it keeps its size."""
        return image

    @torch.no_grad()
    def __call__(self, image: Image.Image) -> Image.Image:
        """A picture of mode LA or RGBA to one of L or RGB of the same size, whole."""
        pixels = pil_to_tensor(image)[None].to(self.device).float()
        colours, known = pixels[:, :-1], (pixels[:, -1:] > 0).float()
        scale = 1.0 if self.side is None else self.side / min(image.size)
        size = [max(1, round(side * scale)) for side in (image.height, image.width)]
        # Hidden pixels must not shine into known ones as they are resized: known ones are weighed.
        seen, share = (
            F.interpolate(one, size, mode="bilinear", antialias=True) for one in (colours * known, known)
        )  # fmt: skip
        small = seen / share.clamp(min=1e-6)
        found = self.fill(small.expand(-1, COLOURS, -1, -1), (share > 0.5).float())
        found = F.interpolate(found.float(), (image.height, image.width), mode="bicubic")
        if colours.shape[1] == 1:
            found = found.mean(1, keepdim=True)
        whole = colours.where(known > 0, found.round().clamp(0, TOP)).to(torch.uint8)
        return to_pil_image(whole[0].cpu())

    def fill(self, colours: Tensor, known: Tensor) -> Tensor:
        """Images (1, 3, H, W) from 0 to 255 of any size, filled."""
        multiple, (height, width) = self.network.multiple, colours.shape[2:]
        pad = (0, -width % multiple, 0, -height % multiple)
        given = torch.cat([colours * (2 / TOP) - 1, known * 2 - 1], 1)
        with torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            found = self.network.translate(F.pad(given, pad, value=-1.0), self.direction)
        return to_pixels(found[:, :, :height, :width])
