"""A picture of a set: images, and beside each what its annotation says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from orchard.data.contracts import RecordSplit
from orchard.files import atomic

SIDE = 240  # most pixels a side of one image
ACROSS = 4  # images in a row, each with its annotation beside it
GAP = 4
PICTURES = 12

R = TypeVar("R")


def some_records(splits: Mapping[str, RecordSplit[R]], count: int = PICTURES) -> list[R]:
    """Training records, spread over their split."""
    split = splits.get("train") or next(iter(splits.values()))
    chosen = np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(int))
    return [split.record(index) for index in chosen.tolist()]


def write_tiles(tiles: list[Image.Image], path: Path) -> None:
    """Write a PNG of images in rows, each of which begins with an image and what its annotation says."""
    for tile in tiles:
        tile.thumbnail((SIDE, SIDE))
    width, height = (max(tile.size[axis] for tile in tiles) for axis in (0, 1))
    columns = min(2 * ACROSS, len(tiles))
    rows = -(-len(tiles) // columns)
    canvas = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP), "white")
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        canvas.paste(tile, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    with atomic(path) as file:
        canvas.save(file, format="PNG")
