"""What networks that fill holes offer: translation of images with a fourth channel, which says what is known."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from orchard.models.translation.contract import Direction, ImageTranslator

COLOURS = 3


class Inpainter(ImageTranslator):
    """Images with holes, (B, 4, H, W) with a last channel that is above 0 where a pixel is known, to whole ones in RGB.

    Known pixels come out as they went in. It learns from images alone, in which holes are made.
    """

    needs_window = False  # does it take images of its own size alone?
    least_batch = 1  # images that it can learn from at a time

    @property
    def holes(self) -> str:
        """The kind of holes that it fills (`orchard.data.holes`)."""
        return "strokes"

    @property
    def hole_share(self) -> float | None:
        """The share of pixels in a hole, where that is always the same."""
        return None

    @property
    def directions(self) -> tuple[Direction, ...]:
        return ("AtoB",)

    def channels(self, side: str) -> int:
        return COLOURS + 1 if side == "A" else COLOURS

    @abstractmethod
    def fill(self, images: Tensor, known: Tensor) -> Tensor:
        """What the network makes of all pixels of images (B, 3, H, W) in [-1, 1], of which `known` (B, 1, H, W) says 1
        or 0."""

    def translate(self, images: Tensor, direction: Direction) -> Tensor:
        if direction not in self.directions:
            raise ValueError(f"expected the direction {self.directions[0]}, got {direction}")
        self.check(images, COLOURS + 1)
        colours, known = images[:, :COLOURS], (images[:, COLOURS:] > 0).to(images.dtype)
        return torch.where(known > 0, colours, self.fill(colours, known).to(images.dtype))
