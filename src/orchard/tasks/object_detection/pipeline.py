"""Objects on images in files or in memory: read by a few threads, answered one by one.

Every image is a batch of its own, as in evaluation, so that an answer does not depend on the images beside it. An image
that cannot be read becomes an answer with an error; the others are answered all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from orchard.data.annotated import resize
from orchard.data.boxes.contracts import Objects
from orchard.data.sizing import with_channels
from orchard.errors import UsageError
from orchard.inference.fast import Precision, plain_precision
from orchard.inference.fast_maps import with_fast_maps
from orchard.inference.image_files import find_items, item_name, read_ahead, read_stored
from orchard.inference.loading import Loaded
from orchard.models.detection.contract import Answer as ModelAnswer
from orchard.models.detection.contract import Found
from orchard.tasks.object_detection import TASK
from orchard.tasks.object_detection.job import sizing_of
from orchard.tasks.record import Task

NOTHING = Objects(np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, bool))


@dataclass(frozen=True)
class Thing:
    """One object that was found."""

    label: str
    score: float  # probability
    box: tuple[float, float, float, float]  # left, top, right, bottom in pixels of the image

    @property
    def mask(self) -> np.ndarray | None:
        """(H, W) bool, of the image's size, where the model gives masks."""
        return None

    @property
    def segmentation(self) -> dict[str, Any] | None:
        """The mask as COCO's files have it."""
        return None

    @property
    def area(self) -> float:
        """Pixels of the mask, or of the box where there is none."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


@dataclass(frozen=True)
class Answer:
    """The objects of one image, most likely first; or why there is no answer."""

    picture: str
    things: tuple[Thing, ...] = ()
    error: str = ""
    size: tuple[int, int] = (0, 0)  # height and width of the image


class ObjectDetector:
    """A trained detector and all it takes to put it to work on images.

    `precision` "auto" is float32 on a processor, bf16 on a GPU that has it. After many images of one size the fastest
    way to run its `dense_maps` on this processor is looked for (`FastMaps`), which `say` is told.
    """

    task: ClassVar[Task] = TASK

    def __init__(self, loaded: Loaded, *, precision: Precision = "auto", say: Callable[[str], None] | None = None):
        if loaded.task != self.task.name:
            raise UsageError(f"{loaded.folder} is for {loaded.task}; objects are found by {self.task.name}")
        self.loaded = loaded
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = plain_precision(precision, self.device)
        self.model = loaded.model.to(self.device).eval()
        if self.device.type == "cpu" and self.precision == "fp32":
            self.model = with_fast_maps(self.model, say=say or (lambda line: None))
        self.sizing = sizing_of(loaded.facts, loaded.pictures.size)

    def __call__(self, images: Any, threshold: float = 0.5) -> list[Answer]:
        """All answers at once, for one image or a list of them, in files or in memory (as for image classification)."""
        return list(self.predict(find_items(images), threshold))

    def predict(self, items: Sequence[Any], threshold: float = 0.5) -> Iterator[Answer]:
        """One answer for each path or image in memory, in order: the objects of at least that probability."""
        for number, ((item, pixels),) in enumerate(read_ahead(items, 1, read_stored)):
            found, name = pixels.result(), item_name(item, number)
            if isinstance(found, str):
                yield Answer(name, error=found)
            else:
                height, width = found.shape[1:]
                things = self._things(self.find(found), (height, width), threshold)
                yield Answer(name, things, size=(height, width))

    @torch.no_grad()
    def find(self, image: Tensor) -> Found:
        """All that the model says of an image (C, H, W) uint8."""
        small, _ = resize(with_channels(image, self.loaded.pictures.channels), NOTHING, self.sizing)
        images = self.loaded.pictures.normalise(small[None].to(self.device))
        half = self.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext():
            found: ModelAnswer = self.model(images)
        (answer,) = found.found(torch.tensor([image.shape[1:]]))
        return answer

    def _things(self, found: Found, size: tuple[int, int], threshold: float) -> tuple[Thing, ...]:
        """The likely ones, most likely first, cut off at the edges of the image of this height and width."""
        height, width = size
        edges = torch.tensor([width, height, width, height])
        order = found.scores.argsort(descending=True, stable=True).tolist()
        boxes = torch.minimum(found.boxes.cpu().clamp(min=0), edges).tolist()
        return tuple(self._thing(found, n, tuple(boxes[n]), size) for n in order if found.scores[n] >= threshold)

    def _thing(self, found: Found, place: int, box: tuple[float, float, float, float], size: tuple[int, int]) -> Thing:
        """The object at a place of what was found, and its box, on an image of this size."""
        return Thing(self.loaded.classes[int(found.labels[place])], float(found.scores[place]), box)
