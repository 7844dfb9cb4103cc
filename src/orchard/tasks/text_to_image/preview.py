"""Pictures while they are being painted, for somebody who waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from orchard.tasks.image_tokenization.image_tokenizer import ImageTokenizer

PREVIEWS = 0.1  # largest share of the time that previews may take
GREY = 128  # of what is not painted yet


@dataclass(frozen=True)
class Progress:
    """How far the pictures are that are being painted: `told` of `of` codes each."""

    first: int  # the number of the first of them among all that are asked for
    count: int
    told: int
    of: int
    previews: list[Image.Image] | None  # what there is to see of them, now and then


ProgressCallback = Callable[[Progress], None]


class Preview:
    """Shows somebody how pictures grow, as often as it costs little."""

    def __init__(self, tokenizer: ImageTokenizer, watch: ProgressCallback | None, first: int, count: int):
        self.tokenizer, self.watch, self.first, self.count = tokenizer, watch, first, count
        self.cost, self.looked = 0.0, time.monotonic()

    def look(self, codes: Tensor, told: int) -> None:
        """codes: (count, n) int64, of which the first `told` are there."""
        if self.watch is None:
            return
        previews, began, of = None, time.monotonic(), codes.shape[1]
        if (began - self.looked) * PREVIEWS >= self.cost or told == of:
            previews = [self._preview(row, told) for row in codes]
            self.looked = time.monotonic()
            self.cost = self.looked - began
        self.watch(Progress(self.first, self.count, told, of, previews))

    def _preview(self, codes: Tensor, told: int) -> Image.Image:
        pixels, stride = self.tokenizer.pixels(codes), self.tokenizer.stride
        unknown = (torch.arange(len(codes)) >= told).view(self.tokenizer.grid)
        unknown = unknown.repeat_interleave(stride, 0).repeat_interleave(stride, 1)
        return to_pil_image(pixels.masked_fill(unknown, GREY))
