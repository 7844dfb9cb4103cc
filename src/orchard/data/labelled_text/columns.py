"""Which column of a table of texts is what: asked for, known by its name, or found by what stands in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from orchard.data.labelled_text.tables import Row
from orchard.data.settings import LabelledTextSettings
from orchard.errors import OrchardError, UsageError

TEXTS = (
    "text", "sentence", "sentence1", "sentence_a", "review", "content", "premise", "question", "question1", "query",
    "comment", "tweet", "body", "document", "utterance", "sent1", "text_a", "title", "message", "description",
)  # fmt: skip
PAIRS = ("text_pair", "sentence2", "sentence_b", "hypothesis", "question2", "sent2", "text_b", "passage")
LABELS = (
    "label", "labels", "class", "category", "sentiment", "target", "rating", "stars", "intent", "topic", "polarity",
    "gold_label", "label_name", "entailment_judgment", "emotion", "score", "similarity", "relatedness_score",
)  # fmt: skip
SPLIT = ("split",)
PATHS = ("path", "file", "filename", "image")  # a table with one is of pictures
LOOKED = 1000  # rows that are looked at where no name says what is what
SHORT = 60  # characters of a class
TOLD = 20  # rows from which on they tell a line of names that are not usual
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


@dataclass(frozen=True)
class Layout:
    """Places of the columns, and their names; `labels` are several where each is one of the classes."""

    text: int
    pair: int | None
    labels: tuple[int, ...]
    split: int | None
    names: tuple[str, ...]
    how: str  # a clause for the reason

    @property
    def several(self) -> tuple[str, ...]:
        return tuple(self.names[place] for place in self.labels) if len(self.labels) > 1 else ()


def has_names(first: Sequence[Any]) -> bool:
    """Whether a first line names columns of texts and labels, and none of pictures."""
    words = {str(cell).strip().lower() for cell in first}
    return bool(words & set(TEXTS)) and bool(words & set(LABELS)) and not words & set(PATHS)


def find_layout(
    source: str, names: Sequence[str], rows: Iterator[Row], settings: LabelledTextSettings
) -> tuple[Layout, Iterator[Row]]:
    """The layout of a table, and its rows without a line of names. `names` are those that its format knows.

    Raises UsageError for a column that is asked for and not there, OrchardError where it cannot be told which is what.
    """
    asked = settings.columns
    first = list(islice(rows, LOOKED))
    if not first:
        raise OrchardError(f"{source} has no row; expected texts with labels")
    if settings.column_names:
        names = settings.column_names
    elif not names:
        wanted = {str(one).lower() for one in (asked.text, asked.text_pair, asked.split) if one is not None}
        labels = asked.label if isinstance(asked.label, tuple) else (asked.label,)
        wanted |= {one.lower() for one in labels if one is not None}
        words = [str(cell).strip() for cell in first[0].cells]
        lower = [word.lower() for word in words]
        if wanted & {word for word in lower if not word.isdigit()} or _looks_named(lower, first[1:]):
            names, first = words, first[1:]
    width = len(names) or len(first[0].cells) if first else len(names)
    given = tuple(names) or tuple(str(number) for number in range(1, width + 1))
    layout = _settle(source, given, bool(names), first, settings)
    return layout, chain(first, rows)


def _looks_named(lower: Sequence[str], rows: Sequence[Row]) -> bool:
    """Whether a first line has usual names of columns, or words that stand nowhere below it over classes or numbers."""
    usual = [place for place, word in enumerate(lower) if word in (*TEXTS, *PAIRS, *LABELS, *SPLIT)]
    alone = [place for place in usual if all(str(cell(row, place)).strip().lower() != lower[place] for row in rows)]
    if len(usual) > 1 or alone:
        return True
    if len(rows) < TOLD or not all(0 < len(word) <= SHORT for word in lower):
        return False
    columns = ([str(cell(row, place)).strip().lower() for row in rows] for place in range(len(lower)))
    return any(_is_over(word, column) for word, column in zip(lower, columns, strict=True))


def _is_over(word: str, column: Sequence[str]) -> bool:
    """Whether a word is unlike what stands below it: numbers, or a few classes, each of which several rows have."""
    if NUMBER.fullmatch(word):
        return False
    counts = Counter(column)
    few = len(counts) <= len(column) // 10 and min(counts.values()) > 1
    return word not in counts and (few or all(map(NUMBER.fullmatch, counts)))


def _settle(
    source: str, names: tuple[str, ...], named: bool, rows: Sequence[Row], settings: LabelledTextSettings
) -> Layout:
    asked = settings.columns
    labels: tuple[int, ...]
    if isinstance(asked.label, tuple):
        labels = tuple(_place(source, names, one, "label") for one in asked.label)
    else:
        label = _one(source, names, asked.label, LABELS if named else (), "label")
        labels = () if label is None else (label,)
    split = _one(source, names, asked.split, SPLIT if named else (), "split")
    text = _one(source, names, asked.text, TEXTS if named else (), "text", taken=(*labels, split))
    pair = _one(source, names, asked.text_pair, PAIRS if named else (), "text_pair", taken=(*labels, split, text))
    free = [place for place in range(len(names)) if place not in (*labels, split, text, pair)]
    if text is None and free:
        text = max(free, key=lambda place: _length(rows, place))
        free.remove(text)
    if not labels and len(free) > 1 and named and _all_flags(rows, free):
        labels = tuple(free)
    elif not labels and free:
        few = min(free, key=lambda place: len({str(cell(row, place)) for row in rows}))
        kinds = {str(cell(row, few)) for row in rows}
        texts = 0 if text is None else len({str(cell(row, text)) for row in rows})
        few_kinds = len(kinds) <= max(2, len(rows) // 4) and all(len(kind) <= SHORT for kind in kinds)
        if len(free) == 1 or (few_kinds and texts > 2 * len(kinds)):
            labels = (few,)
            free.remove(few)
            if pair is None and not named and len(free) == 1 and _length(rows, free[0]) > SHORT / 4:
                pair = free[0]  # two texts and a class, without names
    if text is None or not labels:
        missing = "text" if text is None else "label"
        raise OrchardError(
            f"{source}: no column is the {missing} by its name; it has {', '.join(names)}; say which with "
            f"--set data.columns.{missing}=NAME"
        )
    said = [f"{role} in {names[place]}" for role, place in (("text", text), ("second text", pair)) if place is not None]
    said.append(f"labels in {', '.join(names[place] for place in labels[:5])}")
    return Layout(text, pair, labels, split, names, "; ".join(said))


def cell(row: Row, place: int) -> Any:
    return row.cells[place] if place < len(row.cells) else ""


def _length(rows: Sequence[Row], place: int) -> float:
    return sum(len(str(cell(row, place))) for row in rows) / max(len(rows), 1)


def _all_flags(rows: Sequence[Row], places: Sequence[int]) -> bool:
    return all(str(cell(row, place)).strip() in ("0", "1") for row in rows for place in places)


def _place(source: str, names: Sequence[str], asked: str | int, role: str) -> int:
    """Where the column of that name, or number, stands."""
    lower = [name.lower() for name in names]
    if str(asked).lower() in lower:
        return lower.index(str(asked).lower())
    if str(asked).isdigit() and 1 <= int(asked) <= len(names):
        return int(asked) - 1
    raise UsageError(f"{source} has no column '{asked}' for data.columns.{role}; it has {', '.join(names)}")


def _one(
    source: str,
    names: Sequence[str],
    asked: str | int | None,
    usual: Sequence[str],
    role: str,
    taken: Sequence[int | None] = (),
) -> int | None:
    """The column that is asked for, else the first of the usual names that is there."""
    if asked is not None:
        return _place(source, names, asked, role)
    lower = [name.strip().lower() for name in names]
    return next((lower.index(word) for word in usual if word in lower and lower.index(word) not in taken), None)
