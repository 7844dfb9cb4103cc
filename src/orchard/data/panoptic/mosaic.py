"""A picture of a set: images, and beside each its segments."""

from __future__ import annotations

from pathlib import Path

from torchvision.transforms.functional import to_pil_image

from orchard.data.mosaic import some_records, write_tiles
from orchard.data.panoptic.drawing import draw_segments, segment_colours
from orchard.data.panoptic.sources import open_panoptic
from orchard.data.settings import DataSettings


def draw_mosaic(source: str, settings: DataSettings, path: Path) -> None:
    """Write a PNG of training images, spread over the split, each with its segments and their classes beside it."""
    data = open_panoptic(source, settings)
    tiles = []
    for record in some_records(data.splits):
        image, labels = to_pil_image(record.image).convert("RGB"), record.segments.labels.tolist()
        words = [data.classes[label] for label in labels]
        colours = segment_colours(labels, data.things)
        drawn = draw_segments(image, record.segments.map.numpy(), colours, words)
        tiles += [image.resize(drawn.size), drawn]
    write_tiles(tiles, path)
