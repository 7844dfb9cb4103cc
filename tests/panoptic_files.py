"""Digit scenes as files in COCO's panoptic form, for tests."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from orchard.data.panoptic.named import CLASSES, SceneSegments
from orchard.data.panoptic.reading import ids_image
from orchard.data.scenes import THINGS

STEP = 70_000  # between the ids of two segments, so that all three channels are needed


def write_segments(root: Path, counts: tuple[int, int, int] = (8, 4, 4)) -> Path:
    """So many digit scenes of each split; categories are numbered from 3, ids of segments are large."""
    categories = [{"id": n + 3, "name": name, "isthing": int(n < len(THINGS))} for n, name in enumerate(CLASSES)]
    for split, count in zip(("train", "validation", "test"), counts, strict=True):
        maps = root / "annotations" / f"panoptic_{split}"
        maps.mkdir(parents=True)
        (root / split).mkdir()
        images, annotations = [], []
        for n in range(count):
            record = SceneSegments(split, 0).record(n)
            Image.fromarray(record.image.permute(1, 2, 0).numpy()).save(root / split / f"{split}{n}.png")
            ids_image(record.segments.map.numpy() * STEP).save(maps / f"{split}{n}.png")
            images.append({"id": n, "file_name": f"{split}{n}.png"})
            segments = [
                {"id": number * STEP, "category_id": label + 3, "iscrowd": 0}
                for number, label in enumerate(record.segments.labels.tolist(), 1)
            ]
            annotations.append({"image_id": n, "file_name": f"{split}{n}.png", "segments_info": segments})
        table = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"panoptic_{split}.json").write_text(json.dumps(table))
    return root
