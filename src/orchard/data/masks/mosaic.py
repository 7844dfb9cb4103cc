"""A picture of a set: images, and beside each what its mask says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms.functional import to_pil_image

from orchard.data.masks.colours import overlay
from orchard.data.masks.sources import open_masks
from orchard.data.settings import DataSettings
from orchard.files import atomic

SIDE = 240  # most pixels a side of one image
ACROSS = 4  # images in a row, each with its mask beside it
GAP = 4


def draw_mosaic(source: str, settings: DataSettings, path: Path, pictures: int = 12) -> None:
    """Write a PNG of training images, spread over the split, each with the colours of its mask beside it."""
    data = open_masks(source, settings)
    split = data.splits.get("train") or next(iter(data.splits.values()))
    chosen = np.unique(np.linspace(0, len(split) - 1, min(pictures, len(split))).round().astype(int))
    tiles = []
    for index in chosen.tolist():
        record = split.record(index)
        image = to_pil_image(record.image).convert("RGB")
        tiles += [image, overlay(image, record.mask.numpy(), data.colours)]
    write_tiles(tiles, path)


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
