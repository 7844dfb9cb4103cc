"""The segments of images in files or in memory: read by a few threads, answered one by one.

Every image is a batch of its own, as in evaluation, so that an answer does not depend on the images beside it. An image
that cannot be read becomes an answer with an error; the others are answered all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orchard.data.sizing import resize_image, with_channels
from orchard.errors import UsageError
from orchard.inference.fast import Precision, plain_precision
from orchard.inference.image_files import find_items, item_name, read_ahead, read_stored
from orchard.inference.loading import Loaded
from orchard.tasks.object_detection.job import sizing_of
from orchard.tasks.panoptic_segmentation import TASK
from orchard.tasks.panoptic_segmentation.job import things_of, threshold_of
from orchard.tasks.panoptic_segmentation.merging import Segmented
from orchard.tasks.panoptic_segmentation.objective import PanopticModel, segments_of


@dataclass(frozen=True)
class Segment:
    """One segment that was found."""

    label: str
    score: float  # probability
    thing: bool
    share: float  # of the image's pixels


@dataclass(frozen=True)
class Answer:
    """The segments of one image, the largest share first; or why there is no answer."""

    picture: str
    segments: tuple[Segment, ...] = ()
    map: np.ndarray | None = None  # (H, W) int32, of the image's own size: n + 1 where segment n is, 0 for none
    error: str = ""


class PanopticSegmenter:
    """A trained panoptic model, and all it takes to put it to work on images.

    `precision` "auto" is float32 on a processor, bf16 on a GPU that has it.
    """

    def __init__(self, loaded: Loaded, *, precision: Precision = "auto", say: Callable[[str], None] | None = None):
        if loaded.task != TASK.name:
            raise UsageError(f"{loaded.folder} is for {loaded.task}; segments are found by {TASK.name}")
        self.loaded = loaded
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = plain_precision(precision, self.device)
        self.model: Any = loaded.model.to(self.device).eval()
        self.sizing = sizing_of(loaded.facts, loaded.pictures.size)
        self.things, self.threshold = things_of(loaded), threshold_of(loaded)

    def __call__(self, images: Any, threshold: float | None = None) -> list[Answer]:
        """All answers at once, for one image or a list of them, in files or in memory (as for image classification)."""
        return list(self.predict(find_items(images), threshold))

    def predict(self, items: Sequence[Any], threshold: float | None = None) -> Iterator[Answer]:
        """One answer for each path or image in memory, in order, of segments of at least that probability (by default
        that of the training)."""
        for number, ((item, pixels),) in enumerate(read_ahead(items, 1, read_stored)):
            found, name = pixels.result(), item_name(item, number)
            if isinstance(found, str):
                yield Answer(name, error=found)
            else:
                yield self._answer(name, self.segment(found, self.threshold if threshold is None else threshold))

    @torch.no_grad()
    def segment(self, image: Tensor, threshold: float) -> Segmented:
        """The segments of an image (C, H, W) uint8."""
        height, width = image.shape[1:]
        small = resize_image(with_channels(image, self.loaded.pictures.channels), self.sizing.of(height, width))
        images = self.loaded.pictures.normalise(small[None].to(self.device))
        model: PanopticModel = self.model
        half = self.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext():
            looked = model.look(images, torch.zeros_like(images[:, 0], dtype=torch.bool))
            return segments_of(model, looked, self.things, threshold, images, (height, width))

    def _answer(self, name: str, found: Segmented) -> Answer:
        """The segments by their share of the image, numbered so in the map."""
        areas = np.bincount(found.map.ravel(), minlength=len(found.labels) + 1)[1:]
        order = np.argsort(-areas, kind="stable")
        numbers = np.zeros(len(order) + 1, np.int32)
        numbers[1 + order] = np.arange(1, len(order) + 1)
        segments = tuple(
            Segment(
                self.loaded.classes[found.labels[n]], float(found.scores[n]), self.things[found.labels[n]],
                float(areas[n] / found.map.size),
            )
            for n in order
        )  # fmt: skip
        return Answer(name, segments, numbers[found.map])
