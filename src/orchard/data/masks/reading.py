"""Masks in files: a PNG whose pixels are numbers of classes, with a palette or grey."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from PIL import Image

from orchard.data.files import Files
from orchard.data.pictures import DEEP_MODES, FAULTS, fault, open_picture

SMALL_DEPTHS = {"L;2": 85, "L;4": 17}  # grey levels of fewer than 8 bits, which Pillow spreads over 8
LEVELS = 256


@dataclass(frozen=True)
class SeenMask:
    """What one look at a mask told."""

    height: int
    width: int
    counts: np.ndarray  # (256,) int64: pixels of each number
    digest: bytes  # of its numbers


def read_mask(files: Files, name: str) -> np.ndarray:
    """The numbers in a mask, (H, W) uint8.

    Raises ValueError for a picture with colours in place of numbers, one of `FAULTS` for what is no picture.
    """
    with files.open(name) as file, open_picture(file) as picture:
        numbers = _numbers(picture)
    if numbers.max(initial=0) >= LEVELS or numbers.min(initial=0) < 0:
        raise ValueError(f"its numbers go from {numbers.min()} to {numbers.max()}; expected 0 to 255")
    return numbers.astype(np.uint8)


def _numbers(picture: Image.Image) -> np.ndarray:
    if picture.mode not in ("P", "L", "1", *(DEEP_MODES - {"F"})):
        raise ValueError(
            f"is {picture.mode}, in colours; expected a number for each pixel, as a PNG with a palette or in grey"
        )
    tiles = getattr(picture, "tile", None) if picture.mode == "L" else None
    spread = SMALL_DEPTHS.get(str(tiles[0].args), 1) if tiles else 1
    return np.asarray(picture).astype(np.int64) // spread


def look_at_mask(files: Files, name: str) -> SeenMask | str:
    """What is in a mask, or what is wrong with it."""
    try:
        numbers = read_mask(files, name)
    except FAULTS as error:
        return fault(error)
    except KeyError:
        return "there is no such file"
    height, width = numbers.shape
    counts = np.bincount(numbers.ravel(), minlength=LEVELS)
    return SeenMask(height, width, counts, sha256(numbers.tobytes()).digest())
