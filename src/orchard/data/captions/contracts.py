"""What every set of pictures with captions gives, however it is stored, and what it may be asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from orchard.data.contracts import ImageData, ImageSplit, Problem
from orchard.data.files import as_tensor
from orchard.data.pictures import GREY_MODES, plain
from orchard.data.settings import CaptionSettings as CaptionSettings
from orchard.data.settings import Columns as Columns

Progress = Callable[[int, int], None]  # bytes done, bytes in all


class CaptionSplit(ImageSplit):
    """One split: pictures in a fixed order, each with one caption or several.

    It is a split of pictures like any other, all of one class (its labels are zero), so that what learns from pictures
    alone can be given it as it is.
    """

    @abstractmethod
    def texts(self, index: int) -> tuple[str, ...]:
        """All captions of a record, at least one, none empty."""

    def text(self, index: int) -> str:
        """The first caption."""
        return self.texts(index)[0]

    def idx(self, index: int) -> str:
        """The record's own name: what its idx column says, else its key."""
        return self.key(index)


@dataclass(frozen=True)
class CaptionData:
    """A whole set: its splits ("train" and "validation" always, "test" mostly) and what is known of it."""

    name: str  # the name by which recipes know it, "captions" for a person's own
    source: str  # what the person wrote: a name, a path, a pattern
    format: str  # "named set", "caption folder", "picture TSV"
    reason: str  # how the format was recognised, one sentence
    channels: int
    splits: Mapping[str, CaptionSplit]
    fingerprint: str  # sha256 over captions and pictures of all splits
    problems: tuple[Problem, ...] = field(default=())

    def pictures(self) -> ImageData:
        """The same set without its captions, of one class, for what learns from pictures alone."""
        return ImageData(
            self.name, self.source, self.format, self.reason, ("picture",), self.channels, self.splits,
            self.fingerprint, self.problems,
        )  # fmt: skip


def zeros(count: int) -> np.ndarray:
    """(count,) int64 of zeros in the memory of one, however many there are."""
    return np.lib.stride_tricks.as_strided(np.zeros(1, np.int64), (count,), (0,))


def pixels(split: ImageSplit, index: int) -> Tensor:
    """A picture as stored, (C, H, W) uint8, for splits that can `open` it."""
    with split.open(index) as picture:
        return as_tensor(np.array(plain(picture, 1 if picture.mode in GREY_MODES else 3)))
