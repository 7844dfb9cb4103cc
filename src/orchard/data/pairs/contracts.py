"""What every set of text in pairs gives, however it is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchard.data.contracts import Problem
from orchard.data.pairs.lines import Lines
from orchard.data.splits import AllBut

Parse = Callable[[str], Sequence[str]]  # a line of a table to its two texts; ValueError says what is wrong with it


@dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs of one split, read when they are asked for: `pairs[index]` is a source and its target."""

    files: tuple[Lines, ...]  # sources and targets, line by line; or one table
    parse: Parse | None  # of the table
    rows: np.ndarray | AllBut  # the numbers of the lines that are records
    marks: np.ndarray  # (lines,) int64, by which the pair of each line is known again

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[str, str]:
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        row = int(self.rows[index])
        texts = [file[row] for file in self.files]
        source, target = texts if self.parse is None else self.parse(texts[0])
        return source.strip(), target.strip()

    def key(self, index: int) -> str:
        """What a person would call this pair: its file and line."""
        return self.files[0].key(int(self.rows[index]))


@dataclass(frozen=True)
class TextPairs:
    """A whole set: its splits ("train" and "validation" always, "test" mostly) and what is known of it."""

    name: str  # the name by which recipes know it, "text-pairs" for a person's own
    source: str  # what the person wrote: a name or a path
    format: str  # "named set", "parallel files", "table"
    reason: str  # how the format was recognised, one sentence
    languages: tuple[str, str]  # of sources and of targets, as the files call them
    splits: Mapping[str, Pairs]
    fingerprint: str  # sha256 over all files that are read, and over what was held out
    problems: tuple[Problem, ...] = ()
