"""Named sets with boxes: the digit scenes."""

from __future__ import annotations

import hashlib

import numpy as np

from orchard.data.boxes.contracts import DetectionData, DetectionRecord, DetectionSplit, Objects
from orchard.data.boxes.object_masks import Masks
from orchard.data.scenes import THINGS, make_scene

DIGIT_SCENES = "digit-scenes"
SIZES = {"train": 8000, "validation": 200, "test": 500}  # pictures of one epoch


class SceneBoxes(DetectionSplit):
    """Digit scenes, made when they are needed."""

    endless = True

    def __init__(self, split: str, seed: int, masks: bool = False):
        self.split, self.seed, self.masks = split, seed, masks

    def __len__(self) -> int:
        return SIZES[self.split]

    def record(self, index: int) -> DetectionRecord:
        scene = make_scene(self.seed, self.split, index)
        nothing = np.zeros(len(scene.labels), bool)
        masks = Masks.of(scene.masks) if self.masks else None
        objects = Objects(scene.boxes.numpy(), scene.labels.numpy(), nothing, masks)
        return DetectionRecord(scene.image, objects, self.key(index))

    def objects(self, index: int) -> Objects:
        return self.record(index).objects

    def key(self, index: int) -> str:
        return f"{DIGIT_SCENES}/{self.split}/{index}"


def open_digit_scenes(source: str, seed: int = 0, masks: bool = False) -> DetectionData:
    """Scenes from the three parts of scikit-learn's digits. They need no files."""
    splits = {split: SceneBoxes(split, seed, masks) for split in SIZES}
    first = [split.record(n).image.numpy().tobytes() for split in splits.values() for n in range(4)]
    mark = hashlib.sha256(b"".join(first) + repr((seed, SIZES)).encode()).hexdigest()
    reason = f"'{DIGIT_SCENES}' is the name of a set that Orchard makes"
    return DetectionData(DIGIT_SCENES, source, "named set", reason, THINGS, 3, splits, mark, has_masks=True)
