"""Named sets with masks: the digit scenes, which are made, and CamVid, which lies in a folder."""

from __future__ import annotations

import functools
import hashlib

import numpy as np
import torch

from orchard.data.masks.colours import default_colours
from orchard.data.masks.contracts import Colour, MaskData, MaskRecord, MaskSplit
from orchard.data.scenes import THINGS, make_scene

DIGIT_SCENES, CAMVID = "digit-scenes", "camvid"
SIZES = {"train": 8000, "validation": 200, "test": 500}  # pictures of one epoch
COUNTED = 200  # scenes whose pixels stand for all
SCENE_CLASSES = ("background", *THINGS)
# SegNet's eleven classes of CamVid (Badrinarayanan et al. 2015, arXiv:1511.00561) and its colours; 11 is unlabelled.
CAMVID_CLASSES: dict[str, Colour | None] = {
    "sky": (128, 128, 128), "building": (128, 0, 0), "pole": (192, 192, 128), "road": (128, 64, 128),
    "pavement": (60, 40, 222), "tree": (128, 128, 0), "sign": (192, 128, 128), "fence": (64, 64, 128),
    "car": (64, 0, 128), "pedestrian": (64, 64, 0), "bicyclist": (0, 128, 192),
}  # fmt: skip
CAMVID_UNLABELLED = 11


class SceneMasks(MaskSplit):
    """Digit scenes, made when they are needed: the background, and a class for each digit."""

    endless = True

    def __init__(self, split: str, seed: int):
        self.split, self.seed = split, seed

    def __len__(self) -> int:
        return SIZES[self.split]

    def record(self, index: int) -> MaskRecord:
        scene = make_scene(self.seed, self.split, index)
        mask = (scene.masks * (scene.labels + 1)[:, None, None]).sum(0)  # no pixel belongs to two digits
        return MaskRecord(scene.image, mask.to(torch.uint8), self.key(index))

    def key(self, index: int) -> str:
        return f"{DIGIT_SCENES}/{self.split}/{index}"

    @functools.cached_property
    def _counts(self) -> np.ndarray:
        masks = (self.record(index).mask.flatten() for index in range(min(len(self), COUNTED)))
        return torch.bincount(torch.cat(list(masks)), minlength=len(SCENE_CLASSES)).numpy()

    def pixels(self) -> np.ndarray:
        return self._counts


def open_digit_scenes(source: str, seed: int = 0) -> MaskData:
    """Scenes from the three parts of scikit-learn's digits. They need no files."""
    splits = {split: SceneMasks(split, seed) for split in SIZES}
    first = [split.record(n) for split in splits.values() for n in range(4)]
    content = b"".join(one.image.numpy().tobytes() + one.mask.numpy().tobytes() for one in first)
    mark = hashlib.sha256(content + repr((seed, SIZES)).encode()).hexdigest()
    reason = f"'{DIGIT_SCENES}' is the name of a set that Orchard makes"
    colours = default_colours(len(SCENE_CLASSES))
    return MaskData(DIGIT_SCENES, source, "named set", reason, SCENE_CLASSES, colours, 3, splits, mark)
