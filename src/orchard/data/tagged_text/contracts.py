"""What every set of tagged text gives, however it is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchard.data.contracts import Problem, RecordSplit
from orchard.data.tagged_text.tags import OUTSIDE, PLAIN, parse_tag


@dataclass(frozen=True)
class Sentence:
    """Words and the tag of each, BIO unless the set's scheme is plain; `key` is what a person would call it."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    key: str = ""

    @property
    def mark(self) -> int:
        """Eight bytes of the words, by which the sentence is known again."""
        digest = hashlib.sha256("\t".join(self.words).encode(errors="surrogatepass")).digest()
        return int.from_bytes(digest[:8], "little", signed=True)


class TaggedSplit(RecordSplit[Sentence]):
    """The sentences of one split, in memory."""

    def __init__(self, sentences: Sequence[Sentence]):
        self.sentences = tuple(sentences)

    def __len__(self) -> int:
        return len(self.sentences)

    def record(self, index: int) -> Sentence:
        return self.sentences[index]

    def key(self, index: int) -> str:
        return self.sentences[index].key

    def marks(self) -> np.ndarray:
        """(N,) int64, of each sentence."""
        return np.array([sentence.mark for sentence in self.sentences], np.int64)


@dataclass(frozen=True)
class TaggedText:
    """A whole set: its splits ("train" and "validation" always, "test" mostly) and what is known of it."""

    name: str  # the name by which recipes know it, "tagged-text" for a person's own
    source: str  # what the person wrote: a name or a path
    format: str  # "named set", "columns", "JSON lines", "Python object"
    reason: str  # how the format was recognised, one sentence
    scheme: str  # what the tags were written in: BIO, IOB1, BIOES, ..., or `PLAIN`
    classes: tuple[str, ...]  # all tags: O, B-TYPE, I-TYPE, ...; or the plain ones
    splits: Mapping[str, TaggedSplit]
    fingerprint: str  # sha256 over words and tags of all splits
    problems: tuple[Problem, ...] = ()

    @property
    def characters(self) -> bool:
        """Is every word a single character, as in Chinese sets?"""
        return all(len(word) == 1 for split in self.splits.values() for one in split.sentences for word in one.words)


def classes_of(sentences: Sequence[Sentence], scheme: str) -> tuple[str, ...]:
    """All tags that sentences may have: of every type both of BIO, whether they occur or not; the plain ones as they
    are."""
    tags = sorted({tag for sentence in sentences for tag in sentence.tags} - {OUTSIDE})
    if scheme == PLAIN:
        outside = any(OUTSIDE in sentence.tags for sentence in sentences)
        return (*((OUTSIDE,) if outside else ()), *tags)
    types = sorted({parse_tag(tag)[1] for tag in tags})
    return (OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in "BI"))
