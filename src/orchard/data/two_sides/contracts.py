"""What a set of two sides gives, however it is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from orchard.data.captions.contracts import zeros
from orchard.data.contracts import Problem
from orchard.data.files import Files, FileSplit, Seen

SIDES = ("A", "B")


@dataclass(frozen=True)
class TwoSides:
    """One split. In pairs, picture n of A belongs to picture n of B; else there may be more on one side."""

    a: FileSplit
    b: FileSplit
    paired: bool

    def __len__(self) -> int:
        """Pairs; without pairs, pictures of the larger side."""
        return max(len(self.a), len(self.b))

    def key(self, index: int) -> str:
        """The name of an A; of the larger side, where that has more."""
        return self.a.key(index) if len(self.a) >= len(self.b) else self.b.key(index)

    def side(self, name: str) -> FileSplit:
        """The pictures of "A" or "B"."""
        return self.a if name == "A" else self.b


@dataclass(frozen=True)
class TwoSidesData:
    """A whole set."""

    source: str
    format: str
    reason: str
    splits: Mapping[str, TwoSides]
    channels: tuple[int, int]  # of A and of B: 1 where all pictures are grey, else 3
    fingerprint: str
    problems: tuple[Problem, ...] = ()
    remarks: tuple[str, ...] = ()  # what becomes of pictures of other modes


class Half(FileSplit):
    """The left or the right half of every picture."""

    def __init__(self, files: Files, names: Sequence[str], seen: Sequence[Seen], *, left: bool):
        super().__init__(files, names, zeros(len(names)), seen)
        self.left = left
        self.sizes = self.sizes // np.array((1, 2), np.int32)
        self.small = bool(len(seen)) and int(self.sizes.max()) <= 64

    @contextmanager
    def open(self, index: int) -> Iterator[Image.Image]:
        with super().open(index) as picture:
            middle = picture.width // 2
            yield picture.crop((0 if self.left else middle, 0, middle if self.left else 2 * middle, picture.height))
