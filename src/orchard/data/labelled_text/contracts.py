"""What every set of texts with labels gives, however it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from orchard.data.contracts import Problem
from orchard.data.labelled_text.store import TextStore
from orchard.data.settings import Target
from orchard.data.targets import TARGETS, TargetKind


@dataclass(frozen=True, eq=False)
class LabelledTexts:
    """One split: texts, or pairs of texts, with labels, in a fixed order."""

    store: TextStore
    sources: tuple[str, ...]  # what a person calls the files
    places: np.ndarray  # (N, 2) int64: the file of each record, and its number there, by which it is called
    records: np.ndarray  # (N,) int64: where its texts stand in the store
    digests: np.ndarray  # (N,) int64, by which a record is known again
    labels: np.ndarray  # (N,) int64, or (N, K) float32
    paired: bool

    def __len__(self) -> int:
        return len(self.records)

    def text(self, index: int) -> tuple[str, str | None]:
        """The text, and the second one of a pair."""
        first = int(self.records[index])
        return self.store[first], self.store[first + 1] if self.paired else None

    def key(self, index: int) -> str:
        """What a person would call this record: its file and line."""
        file, number = self.places[index].tolist()
        return self.sources[file].format(number)


@dataclass(frozen=True)
class LabelledTextData:
    """A whole set: its splits ("train" and "validation" always, "test" mostly) and what is known of it."""

    name: str  # the name by which recipes know it, "labelled-text" for a person's own
    source: str  # what the person wrote: a name or a path
    format: str  # "named set", "table", "text folder", "object"
    reason: str  # how the format was recognised, one sentence
    classes: tuple[str, ...]  # names of the columns of labels
    target: Target
    paired: bool
    splits: Mapping[str, LabelledTexts]
    fingerprint: str  # sha256 over texts and labels of all splits
    problems: tuple[Problem, ...] = ()

    @property
    def kind(self) -> type[TargetKind]:
        """What can be said of its labels."""
        return TARGETS[self.target]
