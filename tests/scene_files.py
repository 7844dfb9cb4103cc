"""Digit scenes as files, for tests of detectors and of masks."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from orchard.data.boxes.object_masks import Masks
from orchard.data.scenes import make_scene


def write_scenes(root: Path) -> Path:
    """Sixteen digit scenes as a set in the form of COCO; categories are numbered from 3."""
    categories = [{"id": digit + 3, "name": f"digit {digit}"} for digit in range(10)]
    for split, count in (("train", 8), ("validation", 4), ("test", 4)):
        (root / split).mkdir()
        images, annotations = [], []
        for n in range(count):
            scene = make_scene(0, split, n)
            Image.fromarray(scene.image.permute(1, 2, 0).numpy()).save(root / split / f"{split}{n}.png")
            _, height, width = scene.image.shape
            images.append({"id": n, "file_name": f"{split}{n}.png", "height": height, "width": width})
            rows = zip(scene.boxes.tolist(), scene.labels.tolist(), Masks.of(scene.masks).to_json(), strict=True)
            for (left, top, right, bottom), label, mask in rows:
                box = [left, top, right - left, bottom - top]
                row = {"id": len(annotations), "image_id": n, "category_id": label + 3, "bbox": box}
                annotations.append(row | {"segmentation": mask})
        table = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"instances_{split}.json").write_text(json.dumps(table))
    return root
