"""A picture of a set: images, and beside each what its mask says."""

from __future__ import annotations

from pathlib import Path

from torchvision.transforms.functional import to_pil_image

from orchard.data.masks.colours import overlay
from orchard.data.masks.sources import open_masks
from orchard.data.mosaic import some_records, write_tiles
from orchard.data.settings import DataSettings


def draw_mosaic(source: str, settings: DataSettings, path: Path) -> None:
    """Write a PNG of training images, spread over the split, each with the colours of its mask beside it."""
    data = open_masks(source, settings)
    tiles = []
    for record in some_records(data.splits):
        image = to_pil_image(record.image).convert("RGB")
        tiles += [image, overlay(image, record.mask.numpy(), data.colours)]
    write_tiles(tiles, path)
