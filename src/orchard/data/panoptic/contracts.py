"""What every set of images with segments gives, however it is stored."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from orchard.data.contracts import Problem, RecordSplit
from orchard.data.sizing import resize_labels

VOID = 0  # the number of a pixel that nobody annotated


@dataclass(frozen=True)
class Segments:
    """What the pixels of one image belong to. Of N segments, no pixel is in two."""

    map: Tensor  # (H, W) int32: n + 1 where segment n is, VOID elsewhere
    labels: np.ndarray  # (N,) int64, places in the set's classes
    crowd: np.ndarray  # (N,) bool: several things as one, which nothing learns and no metric asks for

    def mirrored(self, width: int) -> Segments:
        return replace(self, map=self.map.flip(1))

    def cut(self, left: int, top: int, height: int, width: int) -> Segments:
        return replace(self, map=self.map[top : top + height, left : left + width]).present()

    def resized(self, before: tuple[int, int], after: tuple[int, int]) -> Segments:
        return replace(self, map=resize_labels(self.map, after)).present()

    def present(self) -> Segments:
        """The same without segments that have no pixel, the others numbered anew in their order."""
        there = torch.bincount(self.map.flatten(), minlength=len(self.labels) + 1)[1:] > 0
        if bool(there.all()):
            return self
        numbers = torch.zeros(len(there) + 1, dtype=torch.int32)
        numbers[1:][there] = torch.arange(1, int(there.sum()) + 1, dtype=torch.int32)
        kept = there.numpy()
        return Segments(numbers[self.map.long()], self.labels[kept], self.crowd[kept])


@dataclass(frozen=True)
class PanopticRecord:
    """One image and its segments."""

    image: Tensor  # (C, H, W) uint8, C 1 or 3
    segments: Segments
    key: str  # what a person would call it: its path, or `digit-scenes/test/12`


class PanopticSplit(RecordSplit[PanopticRecord]):
    """One split of images with segments."""

    @abstractmethod
    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """(K,) int64 twice: segments and pixels of each class; of a set that is made, in its first records."""


class Relabelled(PanopticSplit):
    """A split whose classes have other numbers: those of a model, say. `numbers` has one for each class."""

    def __init__(self, split: PanopticSplit, numbers: Sequence[int]):
        self.split, self.numbers = split, np.array(numbers)

    def __len__(self) -> int:
        return len(self.split)

    def record(self, index: int) -> PanopticRecord:
        found = self.split.record(index)
        labels = self.numbers[found.segments.labels]
        return replace(found, segments=replace(found.segments, labels=labels))

    def key(self, index: int) -> str:
        return self.split.key(index)

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        columns = np.zeros((2, self.numbers.max() + 1), np.int64)
        columns[:, self.numbers] = self.split.counts()
        return columns[0], columns[1]


@dataclass(frozen=True)
class PanopticData:
    """A whole set: its splits ("train" and "validation", "test", or some of them) and what is known of it."""

    name: str  # the name by which recipes know it, "panoptic" for a person's own
    source: str  # what the person wrote: a name or a path
    format: str  # "named set", "COCO panoptic"
    reason: str  # how the format was recognised, one sentence
    classes: tuple[str, ...]
    things: tuple[bool, ...]  # of each class: is it counted, or is it stuff?
    channels: int
    splits: Mapping[str, PanopticSplit]
    fingerprint: str  # sha256 over images and segments of all splits
    category_ids: tuple[int, ...] | None = None  # what the files call each class
    problems: tuple[Problem, ...] = field(default=())
