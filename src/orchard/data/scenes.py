"""Digit scenes: a set without files and without end, for detecting and segmenting on any machine.

Real handwritten digits (the scans of scikit-learn) stand in pictures of unlike sizes, scaled, coloured and partly
hidden by each other, before textures of four kinds. Every scene is a pure function of its seed, its split and its
number. Each split has scans of its own, so that the digits of a test were never learned.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from orchard.data.counter_rng import COLUMNS, uniforms
from orchard.data.named import open_named
from orchard.data.settings import DataSettings

THINGS = tuple(str(digit) for digit in range(10))
STUFF = ("plain", "stripes", "checks", "noise")  # kinds of background
SPLITS = ("train", "validation", "test")
HEIGHTS, WIDTHS = (96, 128), (128, 160)  # pixels, both ends included
SIDES = (20, 44)  # height of a digit's scan in pixels; its width is that times an aspect
ASPECTS = (0.8, 1.25)
MOST_DIGITS = 6
TRIES = 8  # places that are tried for a digit before it is left out
LEAST_VISIBLE = 0.6  # share of a digit's pixels that those above it may not hide
INK = 0.35  # from which share of ink on a pixel belongs to its digit


@dataclass(frozen=True)
class Scene:
    """One picture and all that is known of it. Of N digits, later ones lie above earlier ones."""

    image: Tensor  # (3, H, W) uint8
    boxes: Tensor  # (N, 4) float32: left, top, right, bottom in pixels, around what is visible
    labels: Tensor  # (N,) int64, places in `THINGS`
    masks: Tensor  # (N, H, W) bool, what is visible of each digit; no pixel belongs to two
    stuff: Tensor  # (H, W) int64, places in `STUFF`, behind the digits too


class Numbers:
    """Random numbers for one scene, given out one after the other."""

    def __init__(self, seed: int, split: str, index: int):
        self.key = len(SPLITS) * seed + SPLITS.index(split), index
        self.rows = 0  # of the table of numbers that this scene may use, those that were drawn
        self.left = np.empty(0)

    def take(self, count: int) -> np.ndarray:
        """(count,) float64 in [0, 1)."""
        if len(self.left) < count:
            rows = max(4, -(-count // COLUMNS))
            drawn = uniforms(*self.key, np.arange(self.rows, self.rows + rows)).ravel()
            self.rows, self.left = self.rows + rows, np.concatenate([self.left, drawn])
        taken, self.left = self.left[:count], self.left[count:]
        return taken

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.take(1)[0])

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self.take(1)[0] * (high - low + 1))

    def colour(self, low: float, high: float) -> np.ndarray:
        """(3, 1, 1) float64."""
        return low + (high - low) * self.take(3)[:, None, None]


@functools.cache
def scans(split: str) -> tuple[Tensor, np.ndarray]:
    """The digits of a split: (M, 1, 8, 8) float32 in [0, 1] and their classes (M,) int64."""
    digits = open_named("digits", None, DataSettings(), "digits").splits[split]
    return torch.stack([digits.image(n) for n in range(len(digits))]).float() / 255, digits.labels


def make_scene(seed: int, split: str, index: int) -> Scene:
    """The scene of this number; `split` is "train", "validation" or "test"."""
    numbers = Numbers(seed, split, index)
    height, width = numbers.whole(*HEIGHTS), numbers.whole(*WIDTHS)
    dark_ink = bool(numbers.whole(0, 1))
    stuff = _regions(numbers, height, width)
    image = _background(numbers, stuff, light=dark_ink)
    masks: list[np.ndarray] = []  # what is visible of each digit
    sizes: list[int] = []  # pixels of each, visible or not
    labels: list[int] = []
    for _ in range(numbers.whole(1, MOST_DIGITS)):
        ink, label = _digit(numbers, split)
        colour = numbers.colour(0, 80) if dark_ink else numbers.colour(175, 255)
        for down, across in numbers.take(2 * TRIES).reshape(TRIES, 2):
            top, left = int(down * (height - len(ink) + 1)), int(across * (width - ink.shape[1] + 1))
            window = slice(top, top + len(ink)), slice(left, left + ink.shape[1])
            hidden = [np.count_nonzero(mask[window] & (ink > INK)) for mask in masks]
            left_over = [np.count_nonzero(mask) - lost for mask, lost in zip(masks, hidden, strict=True)]
            if all(some >= LEAST_VISIBLE * size for some, size in zip(left_over, sizes, strict=True)):
                break
        else:
            continue
        for mask in masks:
            mask[window] &= ink <= INK
        masks.append(np.zeros((height, width), bool))
        masks[-1][window] = ink > INK
        sizes.append(int(np.count_nonzero(masks[-1])))
        labels.append(label)
        strength = np.clip((ink - 0.15) / 0.5, 0, 1)  # strokes are opaque, their edges soft
        image[(slice(None), *window)] += (colour - image[(slice(None), *window)]) * strength
    image += numbers.take(height * width).reshape(height, width) * 24 - 12  # grain
    pixels = image.clip(0, 255).round().astype(np.uint8)
    boxes = np.array([_box(mask) for mask in masks], np.float32)
    return Scene(*map(torch.from_numpy, (pixels, boxes, np.array(labels), np.stack(masks), stuff)))


def _regions(numbers: Numbers, height: int, width: int) -> np.ndarray:
    """Two kinds of background on both sides of a slanted line, (H, W) int64."""
    first, step = numbers.whole(0, len(STUFF) - 1), numbers.whole(1, len(STUFF) - 1)
    at, slope = numbers.between(0.2, 0.8) * height, numbers.between(-0.4, 0.4)
    below = np.arange(height)[:, None] - at > slope * (np.arange(width) - width / 2)
    return np.where(below, first, (first + step) % len(STUFF))


def _background(numbers: Numbers, stuff: np.ndarray, light: bool) -> np.ndarray:
    """The picture behind the digits, (3, H, W) float64: each kind of texture in shades of a colour of its own."""
    height, width = stuff.shape
    rows, columns = np.arange(height)[:, None], np.arange(width)
    period = numbers.whole(4, 10)
    coarse = torch.from_numpy(numbers.take(16 * 20)).view(1, 1, 16, 20)
    blobs = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)[0, 0].numpy()
    patterns = {
        "plain": np.full_like(blobs, 0.5),
        "stripes": (rows + columns) // period % 2,
        "checks": (rows // period + columns // period) % 2,
        "noise": blobs,
    }
    image = np.zeros((3, height, width))
    for kind in np.flatnonzero(np.bincount(stuff.ravel())):
        colour = numbers.colour(150, 220) if light else numbers.colour(20, 90)
        image = np.where(stuff == kind, colour + 35 * (patterns[STUFF[kind]] - 0.5), image)
    return image


def _digit(numbers: Numbers, split: str) -> tuple[np.ndarray, int]:
    """A scan in some size: the share of ink on each pixel, (h, w) float32, and its class."""
    pictures, classes = scans(split)
    scan = numbers.whole(0, len(pictures) - 1)
    tall, aspect = numbers.whole(*SIDES), numbers.between(*ASPECTS)
    ink = F.interpolate(pictures[scan : scan + 1], (tall, round(tall * aspect)), mode="bilinear")
    return ink[0, 0].numpy(), int(classes[scan])


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a mask: edges of pixels, not their middles."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
