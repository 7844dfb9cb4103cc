"""Objects and their masks on images in files or in memory, as a detector answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from orchard.data.boxes.object_masks import Masks
from orchard.models.detection.contract import Found
from orchard.tasks.instance_segmentation import TASK
from orchard.tasks.instance_segmentation.objective import encode
from orchard.tasks.object_detection.pipeline import ObjectDetector, Thing


@dataclass(frozen=True)
class Instance(Thing):
    """One object that was found, with its mask, which is kept encoded."""

    encoded: Masks  # one

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool, of the image's size."""
        pixels: np.ndarray = self.encoded.dense()[0].numpy()
        return pixels

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(self.encoded.areas()[0])

    @property
    def segmentation(self) -> dict[str, Any]:
        """The mask as COCO's files have it: its size and its runs."""
        return self.encoded.to_json()[0]


class InstanceSegmenter(ObjectDetector):
    """A trained model for objects and their masks, and all it takes to put it to work on images."""

    task = TASK

    def _thing(
        self, found: Found, place: int, box: tuple[float, float, float, float], size: tuple[int, int]
    ) -> Instance:
        thing = super()._thing(found, place, box, size)
        assert found.masks is not None
        one = Found(*(column[place][None] for column in (found.scores, found.labels, found.boxes, found.masks)))
        return Instance(**vars(thing), encoded=encode(one, size))
