"""What a record is, in eight bytes of its content: by these a run remembers what it learned from.

A picture is known again wherever it lies and whatever it is called; one that was saved anew is another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from orchard.data.boxes.collect import FileBoxes
from orchard.data.captions.tsv import TsvSplit
from orchard.data.collect import pack_digests
from orchard.data.files import FileSplit
from orchard.data.labelled_text.contracts import LabelledTexts
from orchard.data.masks.collect import FileMasks
from orchard.data.pairs.contracts import Pairs
from orchard.data.picture_objects import ObjectSplit
from orchard.data.questions.contracts import QuestionSplit
from orchard.data.resolutions import Resolutions
from orchard.data.splits import ArraySplit
from orchard.data.tagged_text.contracts import TaggedSplit
from orchard.data.two_sides.contracts import TwoSides
from orchard.files import atomic

NAME = "records.safetensors"  # in a run's folder: digests by split, (N,) int64 in the order of the split
MOST_PAIRS = 2**20  # texts are read for this, line by line


@singledispatch
def digests_of(split: Any) -> np.ndarray:
    """(N,) int64, one for each record in order; of data that is made and not stored, none."""
    return np.empty(0, np.int64)


@digests_of.register
def _(split: FileSplit) -> np.ndarray:
    return pack_digests(split.digests)


@digests_of.register
def _(split: ObjectSplit) -> np.ndarray:
    return pack_digests(split.digests)


@digests_of.register
def _(split: FileBoxes) -> np.ndarray:
    return pack_digests(split.digests)


@digests_of.register
def _(split: FileMasks) -> np.ndarray:
    return pack_digests(split.digests)


@digests_of.register
def _(split: ArraySplit) -> np.ndarray:
    return pack_digests(split.digest(index) for index in range(len(split)))


@digests_of.register
def _(split: TsvSplit) -> np.ndarray:
    return split.marks()


@digests_of.register
def _(split: Resolutions) -> np.ndarray:
    return digests_of(split.images)  # type: ignore[no-any-return]


@digests_of.register
def _(split: TwoSides) -> np.ndarray:
    """Of pairs those of A, else of both sides."""
    return pack_digests(split.a.digests if split.paired else [*split.a.digests, *split.b.digests])


@digests_of.register
def _(split: LabelledTexts) -> np.ndarray:
    return split.digests


@digests_of.register
def _(split: Pairs) -> np.ndarray:
    if len(split) > MOST_PAIRS:
        return np.empty(0, np.int64)
    return pack_digests(hashlib.sha256("\t".join(split[index]).encode()).digest() for index in range(len(split)))


@digests_of.register
def _(split: TaggedSplit) -> np.ndarray:
    return split.marks()


@digests_of.register
def _(split: QuestionSplit) -> np.ndarray:
    return split.marks()


@digests_of.register
def _(split: tuple) -> np.ndarray:  # type: ignore[type-arg]
    """Of the documents of a text: every line of some length, each once."""
    lines = {line.strip() for document in split for line in document.split("\n")}
    return pack_digests(hashlib.sha256(line.encode()).digest() for line in sorted(lines) if len(line) >= 20)


def write_digests(folder: Path, digests: dict[str, np.ndarray]) -> None:
    with atomic(folder / NAME) as file:
        file.write(save({name: array for name, array in digests.items() if len(array)}))


def read_digests(folder: Path) -> dict[str, np.ndarray]:
    """What a run keeps of its records; nothing where it keeps nothing that can be read."""
    try:
        return load_file(folder / NAME)
    except (OSError, SafetensorError):
        return {}


def count_known(digests: np.ndarray, known: Sequence[np.ndarray]) -> int:
    """How many of these records are among the known."""
    return int(np.isin(digests, np.concatenate([np.empty(0, np.int64), *known])).sum())
