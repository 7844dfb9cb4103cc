"""A picture of a set: images, and beside each the boxes of its objects."""

from __future__ import annotations

from pathlib import Path

from torchvision.transforms.functional import to_pil_image

from orchard.data.boxes.drawing import Drawn, draw_boxes
from orchard.data.boxes.sources import open_boxes
from orchard.data.mosaic import SIDE, some_records, write_tiles
from orchard.data.settings import DataSettings


def draw_mosaic(source: str, settings: DataSettings, path: Path) -> None:
    """Write a PNG of training images, spread over the split, each with its boxes beside it."""
    data = open_boxes(source, settings.model_copy(update={"bad_records": "skip"}))
    tiles = []
    for record in some_records(data.splits):
        image = to_pil_image(record.image).convert("RGB")
        scale = SIDE / max(image.size)  # boxes and words are drawn at the size that is shown
        small = image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1)))
        boxes = [
            Drawn(tuple(box), data.classes[label] + " (ignored)" * bool(ignored), int(label))
            for box, label, ignored in zip(
                (record.objects.boxes * scale).tolist(), record.objects.labels, record.objects.ignored, strict=True
            )
        ]
        tiles += [small, draw_boxes(small, boxes, shortest=1)]
    write_tiles(tiles, path)
