"""Holes of pictures of any size, filled by a network that takes images of one size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from orchard.models.translation.inpainting import COLOURS
from orchard.tasks.image_to_image.filling import Filler
from orchard.tasks.image_to_image.translating import TOP

MARGIN = 1.5  # sides of the window over those of the hole, for holes anywhere


class WindowFiller(Filler):
    """A square around all that is to be filled is brought to the network's size, and what it drew back.

    The hole lies in the middle of the square, as far as the network was taught so. What of the square is beyond the
    picture is unknown. Squares smaller than the network's images are not enlarged but made larger.
    """

    @torch.no_grad()
    def __call__(self, image: Image.Image) -> Image.Image:
        pixels = pil_to_tensor(image).float()
        colours, known = pixels[:-1], (pixels[-1:] > 0).float()
        rows, columns = torch.where(known[0] == 0)
        top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
        share = self.network.hole_share
        least = max(int(bottom - top), int(right - left)) * (MARGIN if share is None else share**-0.5)
        side = max(round(least), self.network.config.image_size)
        y, x = int(top + bottom - side) // 2, int(left + right - side) // 2
        around = (-x, x + side - image.width, -y, y + side - image.height)  # negative where it is within
        window = F.pad(torch.cat([colours * known, known]), around)[None].to(self.device)
        small = F.interpolate(window, (self.network.config.image_size,) * 2, mode="bilinear", antialias=True)
        seen, weight = small[:, :-1], small[:, -1:]
        found = self.fill((seen / weight.clamp(min=1e-6)).expand(-1, COLOURS, -1, -1), (weight > 0.5).float())
        large = F.interpolate(found.float(), (side, side), mode="bicubic").cpu()[0]
        large = F.pad(large, [-n for n in around])
        if len(colours) == 1:
            large = large.mean(0, keepdim=True)
        return to_pil_image(colours.where(known > 0, large.round().clamp(0, TOP)).to(torch.uint8))
