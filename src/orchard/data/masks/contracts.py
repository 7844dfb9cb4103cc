"""What every set of images with masks gives, however it is stored."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from orchard.data.contracts import Problem, RecordSplit

IGNORED = 255  # the number of a pixel that nothing learns and no metric counts, whatever the files have for it
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class MaskRecord:
    """One image and the class of each of its pixels."""

    image: Tensor  # (C, H, W) uint8, C 1 or 3
    mask: Tensor  # (H, W) uint8, places in the set's classes, or IGNORED
    key: str  # what a person would call it: its path, or `digit-scenes/test/12`


class MaskSplit(RecordSplit[MaskRecord]):
    """One split of images with masks."""

    @abstractmethod
    def pixels(self) -> np.ndarray:
        """(K,) int64: pixels of each class; of a set that is made, in its first records."""


class Relabelled(MaskSplit):
    """A split whose classes have other numbers: those of a model, say. `numbers` has one for each class."""

    def __init__(self, split: MaskSplit, numbers: Sequence[int]):
        self.split, self.order = split, list(numbers)
        self.numbers = torch.full((256,), IGNORED, dtype=torch.uint8)
        self.numbers[: len(numbers)] = torch.tensor(numbers, dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.split)

    def record(self, index: int) -> MaskRecord:
        found = self.split.record(index)
        return replace(found, mask=self.numbers[found.mask.long()])

    def key(self, index: int) -> str:
        return self.split.key(index)

    def pixels(self) -> np.ndarray:
        counts = np.zeros(max(self.order) + 1, np.int64)
        counts[self.order] = self.split.pixels()
        return counts


@dataclass(frozen=True)
class MaskData:
    """A whole set: its splits ("train" and "validation", "test", or some of them) and what is known of it."""

    name: str  # the name by which recipes know it, "masks" for a person's own
    source: str  # what the person wrote: a name or a path
    format: str  # "named set", "VOC masks", "annot folders", "mask folders"
    reason: str  # how the format was recognised, one sentence
    classes: tuple[str, ...]
    colours: tuple[Colour, ...]  # of each class, where it is drawn
    channels: int
    splits: Mapping[str, MaskSplit]
    fingerprint: str  # sha256 over images and masks of all splits
    problems: tuple[Problem, ...] = field(default=())
