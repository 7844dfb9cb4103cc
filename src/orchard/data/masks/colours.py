"""Colours of classes, and masks drawn in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from orchard.data.masks.contracts import IGNORED, Colour

WHITE: Colour = (255, 255, 255)  # of what is ignored


def voc_colour(number: int) -> Colour:
    """The colour of a class in Pascal VOC's palette: its bits, three by three, are the highest bits of the channels."""
    levels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            levels[channel] |= (number >> (3 * place + channel) & 1) << (7 - place)
    return levels[0], levels[1], levels[2]


def default_colours(count: int) -> tuple[Colour, ...]:
    return tuple(voc_colour(number) for number in range(count))


def palette_image(mask: np.ndarray, colours: Sequence[Colour]) -> Image.Image:
    """A mask (H, W) uint8 as a picture whose pixels are its numbers, with a palette."""
    picture = Image.fromarray(mask)
    picture.putpalette(_table(colours).tobytes())
    return picture


def overlay(image: Image.Image, mask: np.ndarray, colours: Sequence[Colour], share: float = 0.6) -> Image.Image:
    """The colours of a mask (H, W) uint8 over a grey or RGB image of its size; what is ignored stays bare."""
    pixels = np.asarray(image.convert("RGB"))
    mixed = pixels * (1 - share) + _table(colours)[mask] * share
    return Image.fromarray(np.where((mask == IGNORED)[:, :, None], pixels, mixed).round().astype(np.uint8))


def _table(colours: Sequence[Colour]) -> np.ndarray:
    """(256, 3) uint8."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    table[IGNORED] = WHITE
    return table
