"""Segments drawn over their images."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt

from orchard.data.panoptic.contracts import VOID

SHARE = 0.55  # of a segment's colour in what is drawn
SHORTEST = 480  # pixels; smaller images are enlarged, so that words fit
TURN = 0.381966  # of the circle of hues, between a class and the next: those of neighbours are far from each other


def segment_colours(labels: Sequence[int], things: Sequence[bool]) -> np.ndarray:
    """A colour for each segment, (N, 3) uint8: the hue is the class's, the brightness tells things of a class apart,
    and stuff is pale. `things` says of each class whether it is one."""
    colours = np.zeros((len(labels), 3), np.uint8)
    seen: dict[int, int] = {}
    for n, label in enumerate(labels):
        number = seen[label] = seen.get(label, -1) + 1
        strength = (0.85, 1 - 0.2 * (number % 3)) if things[label] else (0.35, 0.8)
        colours[n] = [round(255 * level) for level in colorsys.hsv_to_rgb(label * TURN % 1, *strength)]
    return colours


def draw_segments(image: Image.Image, map: np.ndarray, colours: np.ndarray, words: Sequence[str] = ()) -> Image.Image:
    """A copy of an RGB or grey image with the colours of its segments, white lines between them, and what stands on
    each. `map` (H, W) is n + 1 where segment n is; where nothing is, the image stays bare."""
    scale = max(1, -(-SHORTEST // min(image.size)))
    size = image.width * scale, image.height * scale
    pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.NEAREST))
    numbers = map.repeat(scale, 0).repeat(scale, 1)
    table = np.concatenate([np.zeros((1, 3), np.uint8), colours])
    mixed = pixels * (1 - SHARE) + table[numbers] * SHARE
    mixed = np.where((numbers == VOID)[..., None], pixels, mixed)
    mixed[:, 1:][numbers[:, 1:] != numbers[:, :-1]] = 255
    mixed[1:][numbers[1:] != numbers[:-1]] = 255
    drawn = Image.fromarray(mixed.round().astype(np.uint8))
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(size=max(12, min(size) // 20))
    for n, word in enumerate(words, 1):
        depth = distance_transform_edt(np.pad(map == n, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)  # the middle of its thickest part
        place = scale * (int(column) + 0.5), scale * (int(row) + 0.5)
        pen.text(place, word, fill="white", font=font, anchor="mm", stroke_width=2, stroke_fill="black")
    return drawn
