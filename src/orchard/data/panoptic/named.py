"""Named sets with segments: the digit scenes."""

from __future__ import annotations

import functools
import hashlib

import numpy as np
import torch

from orchard.data.panoptic.contracts import PanopticData, PanopticRecord, PanopticSplit, Segments
from orchard.data.scenes import STUFF, THINGS, make_scene

DIGIT_SCENES = "digit-scenes"
SIZES = {"train": 8000, "validation": 200, "test": 500}  # pictures of one epoch
COUNTED = 200  # scenes whose segments stand for all
CLASSES = (*THINGS, *STUFF)


class SceneSegments(PanopticSplit):
    """Digit scenes, made when they are needed: the digits are things, the two kinds of background are stuff."""

    endless = True

    def __init__(self, split: str, seed: int):
        self.split, self.seed = split, seed

    def __len__(self) -> int:
        return SIZES[self.split]

    def record(self, index: int) -> PanopticRecord:
        scene = make_scene(self.seed, self.split, index)
        kinds = torch.tensor(np.unique(scene.stuff.numpy()))
        count = len(scene.labels)
        map = count + 1 + torch.searchsorted(kinds, scene.stuff)
        numbers = (scene.masks * torch.arange(1, count + 1)[:, None, None]).sum(0)  # no pixel belongs to two digits
        map = torch.where(numbers > 0, numbers, map).int()
        labels = torch.cat([scene.labels, len(THINGS) + kinds]).numpy()
        segments = Segments(map, labels, np.zeros(len(labels), bool)).present()
        return PanopticRecord(scene.image, segments, self.key(index))

    def key(self, index: int) -> str:
        return f"{DIGIT_SCENES}/{self.split}/{index}"

    @functools.cached_property
    def _counts(self) -> tuple[np.ndarray, np.ndarray]:
        segments, pixels = np.zeros((2, len(CLASSES)), np.int64)
        for index in range(min(len(self), COUNTED)):
            found = self.record(index).segments
            sizes = torch.bincount(found.map.flatten(), minlength=len(found.labels) + 1).numpy()[1:]
            np.add.at(segments, found.labels, 1)
            np.add.at(pixels, found.labels, sizes)
        return segments, pixels

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        return self._counts


def open_digit_scenes(source: str, seed: int = 0) -> PanopticData:
    """Scenes from the three parts of scikit-learn's digits. They need no files."""
    splits = {split: SceneSegments(split, seed) for split in SIZES}
    first = [split.record(n) for split in splits.values() for n in range(4)]
    content = b"".join(one.image.numpy().tobytes() + one.segments.map.numpy().tobytes() for one in first)
    mark = hashlib.sha256(content + repr((seed, SIZES)).encode()).hexdigest()
    reason = f"'{DIGIT_SCENES}' is the name of a set that Orchard makes"
    things = (*(True for _ in THINGS), *(False for _ in STUFF))
    return PanopticData(DIGIT_SCENES, source, "named set", reason, CLASSES, things, 3, splits, mark)
