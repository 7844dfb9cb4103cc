"""What every set of questions about texts gives, however it is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from orchard.data.contracts import Problem, RecordSplit

NOWHERE = -1  # where an answer in other words than the text's stands: it is compared with, and not learned


class Answer(NamedTuple):
    """An answer, and where its first character stands in the text, or `NOWHERE`."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question about a text; without answers the text does not answer it. `key` is what a person would call it."""

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    key: str = ""

    @property
    def of_text(self) -> int:
        """Eight bytes of the text, by which it is known again."""
        return _mark(self.context)

    @property
    def mark(self) -> int:
        """Eight bytes of question and text."""
        return _mark(f"{self.question}\t{self.context}")


class QuestionSplit(RecordSplit[Question]):
    """The questions of one split, in memory."""

    def __init__(self, questions: Sequence[Question]):
        self.questions = tuple(questions)

    def __len__(self) -> int:
        return len(self.questions)

    def record(self, index: int) -> Question:
        return self.questions[index]

    def key(self, index: int) -> str:
        return self.questions[index].key

    def marks(self) -> np.ndarray:
        """(N,) int64, of each question with its text."""
        return np.array([question.mark for question in self.questions], np.int64)


@dataclass(frozen=True)
class QuestionSet:
    """A whole set: its splits ("train" and "validation" always, "test" mostly) and what is known of it."""

    name: str  # the name by which recipes know it, "questions" for a person's own
    source: str  # what the person wrote: a name or a path
    format: str  # "named set", "SQuAD", "JSON lines"
    reason: str  # how the format was recognised, one sentence
    language: str  # "zh" where answers are compared by characters, else "en"
    splits: Mapping[str, QuestionSplit]
    fingerprint: str  # sha256 over questions, texts and answers of all splits
    problems: tuple[Problem, ...] = ()

    @property
    def unanswerable(self) -> bool:
        """Are there questions that their text does not answer (SQuAD 2.0)?"""
        return any(not one.answers for split in self.splits.values() for one in split.questions)


def _mark(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:8], "little", signed=True)
