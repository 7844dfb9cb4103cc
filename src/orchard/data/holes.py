"""Holes in images, by random numbers alone, so that the same numbers cut the same hole everywhere."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

NUMBERS = 60  # random numbers that a hole is made of, at most
JOINTS = 3  # of a stroke, each a turn and a length
PER_STROKE = 4 + 2 * JOINTS
STROKES = 5
BLOCKS = 10  # rectangles at most, of 4 numbers each

Hole = Callable[[int, np.ndarray, float], np.ndarray]


def strokes(size: int, numbers: np.ndarray, share: float) -> np.ndarray:
    """(size, size) bool, True in a hole of strokes of a brush, which end when about `share` of the pixels are gone.

    Args:
        size: pixels a side.
        numbers: `NUMBERS` random numbers in [0, 1).
        share: of the pixels, in (0, 1).
    """
    canvas = Image.new("1", (size, size))
    pen = ImageDraw.Draw(canvas)
    for row in numbers[: STROKES * PER_STROKE].reshape(STROKES, PER_STROKE):
        x, y, heading, thickness = row[0] * size, row[1] * size, row[2] * 2 * pi, row[3]
        radius = max(0.5, size * (0.02 + 0.08 * thickness))
        for turn, length in row[4:].reshape(JOINTS, 2):
            heading += (turn - 0.5) * pi
            step = size * (0.1 + 0.4 * length)
            end = min(max(x + step * cos(heading), 0), size), min(max(y + step * sin(heading), 0), size)
            pen.line([(x, y), end], fill=1, width=max(1, round(2 * radius)))
            for across, down in ((x, y), end):
                pen.ellipse([across - radius, down - radius, across + radius, down + radius], fill=1)
            x, y = end
            if np.asarray(canvas).mean() >= share:
                return np.array(canvas)
    return np.array(canvas)


def blocks(size: int, numbers: np.ndarray, share: float) -> np.ndarray:
    """The same of rectangles that may overlap (Pathak et al. 2016, section 3.3)."""
    hole = np.zeros((size, size), bool)
    for row in numbers[: BLOCKS * 4].reshape(BLOCKS, 4):
        height, width = (round(size * (0.1 + 0.25 * n)) for n in row[:2])
        top, left = int(row[2] * (size - height + 1)), int(row[3] * (size - width + 1))
        hole[top : top + height, left : left + width] = True
        if hole.mean() >= share:
            break
    return hole


def centre(size: int, numbers: np.ndarray, share: float) -> np.ndarray:
    """A square in the middle of about that share of the pixels, whatever the numbers are."""
    hole, edge = np.zeros((size, size), bool), round(size * (1 - share**0.5) / 2)
    hole[edge : size - edge, edge : size - edge] = True
    return hole


HOLES: dict[str, Hole] = {"strokes": strokes, "blocks": blocks, "centre": centre}


def cut_hole(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Pixels (S, S, 3) uint8 with a fourth channel, 255 where they are known; 0 throughout the hole."""
    known = ~hole
    return np.dstack([pixels * known[..., None], np.where(known, 255, 0)]).astype(np.uint8)
