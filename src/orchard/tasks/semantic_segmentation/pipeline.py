"""Masks of images in files or in memory: read by a few threads, answered one by one.

Every image is a batch of its own, as in evaluation, so that an answer does not depend on the images beside it. An image
that cannot be read becomes an answer with an error; the others are answered all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orchard.data.masks.colours import default_colours
from orchard.data.masks.contracts import Colour
from orchard.data.sizing import resize_image, with_channels
from orchard.errors import UsageError
from orchard.inference.fast import Precision, plain_precision
from orchard.inference.image_files import find_items, item_name, read_ahead, read_stored
from orchard.inference.loading import Loaded
from orchard.tasks.semantic_segmentation import TASK
from orchard.tasks.semantic_segmentation.job import sizing_of
from orchard.tasks.semantic_segmentation.objective import logits_at


@dataclass(frozen=True)
class Answer:
    """The class of every pixel of one image; or why there is no answer."""

    picture: str
    mask: np.ndarray | None = None  # (H, W) uint8, of the image's own size: places in the model's classes
    shares: Mapping[str, float] = field(default_factory=dict)  # of the image, by class, the largest first
    error: str = ""


class Segmenter:
    """A trained network that segments, and all it takes to put it to work on images.

    `precision` "auto" is float32 on a processor, bf16 on a GPU that has it.
    """

    def __init__(self, loaded: Loaded, *, precision: Precision = "auto", say: Callable[[str], None] | None = None):
        if loaded.task != TASK.name:
            raise UsageError(f"{loaded.folder} is for {loaded.task}; pixels are classified by {TASK.name}")
        self.loaded = loaded
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = plain_precision(precision, self.device)
        self.model = loaded.model.to(self.device).eval()
        self.sizing = sizing_of(loaded.facts, loaded.pictures.size)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.loaded.classes

    @property
    def colours(self) -> tuple[Colour, ...]:
        """What each class is drawn in."""
        known = self.loaded.facts.get("colours")
        return tuple((r, g, b) for r, g, b in known) if known else default_colours(len(self.classes))

    def __call__(self, images: Any) -> list[Answer]:
        """All answers at once, for one image or a list of them, in files or in memory (as for image classification)."""
        return list(self.predict(find_items(images)))

    def predict(self, items: Sequence[Any]) -> Iterator[Answer]:
        """One answer for each path or image in memory, in order."""
        for number, ((item, pixels),) in enumerate(read_ahead(items, 1, read_stored)):
            found, name = pixels.result(), item_name(item, number)
            if isinstance(found, str):
                yield Answer(name, error=found)
            else:
                mask = self.segment(found)
                yield Answer(name, mask, self._shares(mask))

    @torch.no_grad()
    def segment(self, image: Tensor) -> np.ndarray:
        """The class of every pixel of an image (C, H, W) uint8: (H, W) uint8."""
        small = resize_image(with_channels(image, self.loaded.pictures.channels), self.sizing.of(*image.shape[1:]))
        images = self.loaded.pictures.normalise(small[None].to(self.device))
        half = self.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext():
            logits = logits_at(self.model, images, image.shape[1:])
        return logits[0].argmax(0).byte().cpu().numpy()

    def _shares(self, mask: np.ndarray) -> dict[str, float]:
        counts = np.bincount(mask.ravel(), minlength=len(self.classes))
        order = np.argsort(-counts, kind="stable")
        return {self.classes[n]: float(counts[n] / mask.size) for n in order if counts[n]}
