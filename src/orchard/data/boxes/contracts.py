"""What every set of pictures with boxes gives, however it is stored."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from orchard.data.boxes.object_masks import Masks
from orchard.data.contracts import Problem, RecordSplit


@dataclass(frozen=True)
class Objects:
    """What is to be found in one picture."""

    boxes: np.ndarray  # (N, 4) float32: left, top, right, bottom in pixels, inside the picture and with an area
    labels: np.ndarray  # (N,) int64, places in the set's classes
    ignored: np.ndarray  # (N,) bool: crowds and objects marked difficult, which nothing learns and no figure counts
    masks: Masks | None = None  # N, of the picture's size, where they were asked for

    def moved(self, boxes: np.ndarray, change: Callable[[Masks], Masks]) -> Objects:
        """The same objects on a changed picture: their boxes there, and what becomes of their masks."""
        return replace(self, boxes=boxes, masks=None if self.masks is None else change(self.masks))

    def only(self, kept: np.ndarray) -> Objects:
        """Those that a bool (N,) marks."""
        masks = None if self.masks is None else self.masks.only(kept)
        return Objects(self.boxes[kept], self.labels[kept], self.ignored[kept], masks)

    def mirrored(self, width: int) -> Objects:
        left, top, right, bottom = self.boxes.T
        return self.moved(np.stack([width - right, top, width - left, bottom], 1), Masks.mirrored)

    def cut(self, left: int, top: int, height: int, width: int) -> Objects:
        """What is left of each object's box stays with it; objects with nothing left are gone."""
        corner, edges = (np.array(pair * 2, np.float32) for pair in ([left, top], [width, height]))
        boxes = np.clip(self.boxes - corner, 0, edges)
        kept: np.ndarray = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
        return self.moved(boxes, lambda masks: masks.moved(left, top, height, width)).only(kept)

    def resized(self, before: tuple[int, int], after: tuple[int, int]) -> Objects:
        scale = np.array([after[1] / before[1], after[0] / before[0]] * 2, np.float32)
        edges = np.array([after[1], after[0]] * 2, np.float32)
        boxes = np.minimum(self.boxes * scale, edges)  # the product may round to just past them
        return self.moved(boxes, lambda masks: masks.resized(*after))

    @classmethod
    def joined(cls, parts: Sequence[Objects]) -> Objects:
        """Those of several that lie on one picture, all of which have masks, or none."""
        boxes, labels, ignored = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "labels", "ignored")
        )
        masks = [part.masks for part in parts if part.masks is not None]
        return cls(boxes, labels, ignored, Masks.joined(masks) if masks else None)

    def without_masks(self) -> Objects:
        return replace(self, masks=None)


@dataclass(frozen=True)
class DetectionRecord:
    """One picture with its objects."""

    image: Tensor  # (C, H, W) uint8, C 1 or 3
    objects: Objects
    key: str  # what a person would call it: its path, or `digit-scenes/test/12`


class DetectionSplit(RecordSplit[DetectionRecord]):
    """One split of pictures with objects."""

    @abstractmethod
    def objects(self, index: int) -> Objects:
        """The objects alone, where that is cheaper."""


class Relabelled(DetectionSplit):
    """A split whose classes have other numbers: those of a model, say. `numbers` has one for each class."""

    def __init__(self, split: DetectionSplit, numbers: Sequence[int]):
        self.split, self.numbers = split, np.array(numbers)

    def __len__(self) -> int:
        return len(self.split)

    def record(self, index: int) -> DetectionRecord:
        found = self.split.record(index)
        return replace(found, objects=self._renumbered(found.objects))

    def objects(self, index: int) -> Objects:
        return self._renumbered(self.split.objects(index))

    def key(self, index: int) -> str:
        return self.split.key(index)

    def _renumbered(self, objects: Objects) -> Objects:
        return replace(objects, labels=self.numbers[objects.labels])


@dataclass(frozen=True)
class DetectionData:
    """A whole set: its splits ("train" and "validation", "test", or some of them) and what is known of it."""

    name: str  # the name by which recipes know it, "boxes" for a person's own
    source: str  # what the person wrote: a name or a path
    format: str  # "named set", "COCO", "VOC", "YOLO"
    reason: str  # how the format was recognised, one sentence
    classes: tuple[str, ...]
    channels: int
    splits: Mapping[str, DetectionSplit]
    fingerprint: str  # sha256 over pictures, boxes and labels of all splits
    category_ids: tuple[int, ...] | None = None  # what the files call each class, where that is a number (COCO)
    problems: tuple[Problem, ...] = field(default=())
    has_masks: bool = False  # of objects, whether they were asked for or not
    notes: tuple[str, ...] = ()  # where pictures were found, what else is there: a line each
    box_faults: Mapping[str, Sequence[str]] = field(default_factory=dict)  # fault → the annotations with it
