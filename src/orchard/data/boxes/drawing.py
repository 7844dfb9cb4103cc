"""Boxes and masks drawn on images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
SHARE = 0.5  # of a mask's colour


@dataclass(frozen=True)
class Drawn:
    """One box: left, top, right, bottom in pixels, what stands at it, and the number of its colour; and the mask of
    what is in it, if that is known."""

    box: tuple[float, float, float, float]
    words: str
    colour: int
    mask: np.ndarray | None = None  # (H, W) bool, of the image's size


def draw_boxes(image: Image.Image, boxes: Sequence[Drawn], shortest: int = 480) -> Image.Image:
    """A copy of an RGB or grey image with the masks and boxes on it; one with a shorter side is enlarged, so that words
    fit."""
    image = _with_masks(image, boxes)
    scale = max(1, -(-shortest // min(image.size)))
    size = image.width * scale, image.height * scale
    drawn = image.convert("RGB").resize(size, Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(drawn)
    width = max(2, min(drawn.size) // 200)
    font = ImageFont.load_default(size=max(12, min(drawn.size) // 30))
    for one in boxes:
        colour = class_colour(one.colour)
        left, top, right, bottom = (value * scale for value in one.box)
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=width)
        if one.words:
            word_left, word_top, word_right, word_bottom = pen.textbbox((0, 0), one.words, font=font)
            above = top - word_bottom - 2 * width if top > word_bottom + 2 * width else top
            pen.rectangle((left, above, left + word_right + 2 * width, above + word_bottom + 2 * width), fill=colour)
            text = BLACK if sum(colour) > 380 else WHITE
            pen.text((left + width - word_left, above + width - word_top / 2), one.words, fill=text, font=font)
    return drawn


def _with_masks(image: Image.Image, boxes: Sequence[Drawn]) -> Image.Image:
    """The image with the colour of each mask mixed in."""
    pixels = np.array(image.convert("RGB"), np.float32)
    for one in boxes:
        if one.mask is not None:
            pixels[one.mask] = (1 - SHARE) * pixels[one.mask] + SHARE * np.array(class_colour(one.colour), np.float32)
    return Image.fromarray(pixels.round().astype(np.uint8))


def class_colour(number: int) -> tuple[int, int, int]:
    """A colour for each class: hues a golden angle apart, so that the first ones are far from each other."""
    red, green, blue = ImageColor.getrgb(f"hsl({number * 137.5 % 360:.0f}, 75%, {55 if number % 2 else 45}%)")[:3]
    return red, green, blue
