"""What is learned of an image or a text: its class, several classes or numbers. Read without torch.

A reader of data finds raw labels: the text of a field, the cells of several columns, a list of names, or numbers. A
target makes labels of them and says what is wrong with one, which names they have, how they are stored and which
records must stay together when some are held out.
"""

from __future__ import annotations

import math
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from orchard.data.label_words import look_at_labels, sort_classes
from orchard.data.settings import DataSettings, LabelSettings, Target
from orchard.errors import OrchardError, UsageError

Raw = str | tuple[str, ...] | tuple[float, ...]  # a field; cells of columns, or names; numbers
CELLS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
SEPARATORS = ("|", ";", ",")  # that are looked for where several classes are asked for and none is named
UNNAMED = "number"  # what a number is called that no column names
PARTS = 8  # of the range of a number


class TargetKind(ABC):
    """What labels are and how they are stored: (N,) int64, or (N, K) float32 with a column for each name."""

    target: ClassVar[Target]

    @abstractmethod
    def read(self, raw: Raw) -> Any:
        """A label from what stands in the data; ValueError says what is wrong with it."""

    @abstractmethod
    def names(self, labels: Sequence[Any]) -> tuple[str, ...]:
        """The classes, or what the numbers are called, in the order in which they are stored."""

    def unknown(self, label: Any, names: Collection[str]) -> str:
        """What of a label training never sees; empty where it is all known."""
        return ""

    @abstractmethod
    def check(self, source: str, labels: Sequence[Any], names: Sequence[str]) -> list[str]:
        """Remarks on the training labels; OrchardError where nothing can be learned from them."""

    @abstractmethod
    def encode(self, labels: Sequence[Any], names: Sequence[str]) -> np.ndarray:
        """Labels as they are stored."""

    @abstractmethod
    def strata(self, encoded: np.ndarray) -> np.ndarray:
        """(N,) int64: groups of which each keeps a record to learn from when some are held out."""

    @staticmethod
    @abstractmethod
    def words(label: np.ndarray, names: Sequence[str]) -> str:
        """One stored label, for a person."""

    @staticmethod
    @abstractmethod
    def counts(encoded: np.ndarray, names: Sequence[str]) -> dict[str, int]:
        """How many records have each name."""

    @staticmethod
    @abstractmethod
    def groups(encoded: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
        """Indices of records that are alike, a group for each kind that is worth a look."""


class OneClass(TargetKind):
    """One class for each record; `known` are all there are, in their order, where a data set names them."""

    target = "class"

    def __init__(self, known: Sequence[str] = ()):
        self.known = tuple(known)

    def read(self, raw: Raw) -> str:
        if not isinstance(raw, str):
            raise ValueError(f"its label is {list(raw)[:5]}; expected one class (data.target=classes learns several)")
        return _composed(raw)

    def names(self, labels: Sequence[str]) -> tuple[str, ...]:
        return self.known or sort_classes(set(labels))

    def unknown(self, label: str, names: Collection[str]) -> str:
        return "" if label in names else f"class '{label}' is not among the training classes"

    def check(self, source: str, labels: Sequence[str], names: Sequence[str]) -> list[str]:
        if len(found := set(labels)) == 1:
            raise OrchardError(f"{source} has one class only, '{found.pop()}'; to tell classes apart takes two")
        return look_at_labels(source, labels)

    def encode(self, labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
        number = {name: place for place, name in enumerate(names)}
        return np.array([number[label] for label in labels])

    def strata(self, encoded: np.ndarray) -> np.ndarray:
        return encoded

    @staticmethod
    def words(label: np.ndarray, names: Sequence[str]) -> str:
        return names[int(label)]

    @staticmethod
    def counts(encoded: np.ndarray, names: Sequence[str]) -> dict[str, int]:
        return dict(zip(names, np.bincount(encoded, minlength=len(names)).tolist(), strict=True))

    @staticmethod
    def groups(encoded: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
        return [np.flatnonzero(encoded == label) for label in range(len(names))]


class SeveralClasses(TargetKind):
    """Any number of classes for each record: a column of 0 and 1 for each, a field with a separated list, or a list."""

    target = "classes"

    def __init__(self, columns: Sequence[str] = (), separator: str = "", known: Sequence[str] = ()):
        self.columns, self.separator, self.known = tuple(columns), separator, tuple(known)

    def read(self, raw: Raw) -> frozenset[str]:
        if self.columns:
            return frozenset(name for name, cell in zip(self.columns, raw, strict=True) if _flag(name, str(cell)))
        if isinstance(raw, str):
            found = [
                name for part in (raw.split(self.separator) if self.separator else [raw]) if (name := part.strip())
            ]
            if not found:
                raise ValueError("its list of labels is empty; columns of 0 and 1, one for each label, can say that an "
                                 "image has none")  # fmt: skip
            return frozenset(map(_composed, found))
        if any(not isinstance(name, str) for name in raw):
            raise ValueError(f"its label is {list(raw)[:5]}; expected a list of classes")
        return frozenset(_composed(str(name)) for name in raw)

    def names(self, labels: Sequence[frozenset[str]]) -> tuple[str, ...]:
        return self.columns or self.known or sort_classes(set().union(*labels))

    def unknown(self, label: frozenset[str], names: Collection[str]) -> str:
        strange = sorted(label.difference(names))
        return f"label '{strange[0]}' is on no training record" if strange else ""

    def check(self, source: str, labels: Sequence[frozenset[str]], names: Sequence[str]) -> list[str]:
        counts = {name: sum(name in label for label in labels) for name in names}
        if all(count in (0, len(labels)) for count in counts.values()):
            raise OrchardError(
                f"{source} has the same labels on every training record; nothing can be learned from them"
            )
        none = "no training record has the label '{}', which will hardly be answered"
        every = "every training record has the label '{}', which tells none apart"
        return [none.format(n) for n, c in counts.items() if not c] + [
            every.format(n) for n, c in counts.items() if c == len(labels)
        ]

    def encode(self, labels: Sequence[frozenset[str]], names: Sequence[str]) -> np.ndarray:
        number = {name: place for place, name in enumerate(names)}
        rows = np.zeros((len(labels), len(names)), np.float32)
        for row, label in zip(rows, labels, strict=True):
            row[[number[name] for name in label]] = 1
        return rows

    def strata(self, encoded: np.ndarray) -> np.ndarray:
        """The rarest class of each record, so that none is held out altogether; 0 for records without one."""
        rarity = np.where(encoded > 0, encoded.sum(0), np.inf)
        return np.where(encoded.any(1), rarity.argmin(1) + 1, 0)

    @staticmethod
    def words(label: np.ndarray, names: Sequence[str]) -> str:
        return ", ".join(name for name, there in zip(names, label, strict=True) if there) or "no label"

    @staticmethod
    def counts(encoded: np.ndarray, names: Sequence[str]) -> dict[str, int]:
        return dict(zip(names, encoded.sum(0).astype(int).tolist(), strict=True))

    @staticmethod
    def groups(encoded: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
        return [np.flatnonzero(column) for column in (*encoded.T, ~encoded.any(1))]


class Numbers(TargetKind):
    """Numbers for each record, each of a column or of a place in a list."""

    target = "number"

    def __init__(self, columns: Sequence[str]):
        self.columns = tuple(columns)

    def read(self, raw: Raw) -> tuple[float, ...]:
        cells: tuple[str | float, ...] = (raw,) if isinstance(raw, str) else raw
        if len(cells) != len(self.columns):
            raise ValueError(f"it has {len(cells)} numbers, others have {len(self.columns)}")
        return tuple(_number(name, cell) for name, cell in zip(self.columns, cells, strict=True))

    def names(self, labels: Sequence[tuple[float, ...]]) -> tuple[str, ...]:
        return self.columns

    def check(self, source: str, labels: Sequence[tuple[float, ...]], names: Sequence[str]) -> list[str]:
        for name, values in zip(names, zip(*labels, strict=True), strict=True):
            if len(np.unique(np.array(values, np.float32))) == 1:
                raise OrchardError(
                    f"{source}: every training record has {values[0]:g} as {name}; expected numbers that differ"
                )
        return []

    def encode(self, labels: Sequence[tuple[float, ...]], names: Sequence[str]) -> np.ndarray:
        return np.array(labels, np.float32).reshape(len(labels), len(names))

    def strata(self, encoded: np.ndarray) -> np.ndarray:
        return np.zeros(len(encoded), np.int64)

    @staticmethod
    def words(label: np.ndarray, names: Sequence[str]) -> str:
        return ", ".join(f"{value:.6g}" for value in label)

    @staticmethod
    def counts(encoded: np.ndarray, names: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(names, len(encoded))

    @staticmethod
    def groups(encoded: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
        """From small to large by the first number."""
        return np.array_split(encoded[:, 0].argsort(kind="stable"), min(PARTS, len(encoded)))


TARGETS: Mapping[str, type[TargetKind]] = {kind.target: kind for kind in (OneClass, SeveralClasses, Numbers)}


def choose_target(
    source: str,
    raws: Sequence[Raw],
    settings: DataSettings,
    *,
    columns: Sequence[str] = (),
    column: str = UNNAMED,
    known: Sequence[str] = (),
) -> tuple[TargetKind, str]:
    """What is learned, by the settings and the look of the labels, and a clause that says how it was found.

    Args:
        source: what the data is called.
        raws: the labels of all records.
        settings: of the data.
        columns: the names of the columns whose cells `raws` are, where they are of several.
        column: the name of the one column that they are of.
        known: the classes that a data set names.

    Raises UsageError for settings that contradict the data or each other.
    """
    asked, separator = None, None
    if isinstance(settings, LabelSettings):
        asked, separator = settings.target, settings.label_separator
    if columns:
        if asked == "class" or separator:
            raise UsageError(
                f"{source}: the labels are in {len(columns)} columns; data.target is classes or number, and "
                "data.label_separator is for one column"
            )
        if asked == "number":
            return Numbers(columns), f", with {len(columns)} numbers in columns"
        return SeveralClasses(columns), f", with {len(columns)} columns of 0 and 1, one for each class"
    numbers = [raw for raw in raws if not isinstance(raw, str) and raw and isinstance(raw[0], float)]
    lists = any(not isinstance(raw, str) for raw in raws)
    target = asked or ("number" if numbers else "classes" if lists or separator else "class")
    if separator and target != "classes":
        raise UsageError(
            f"{source}: data.label_separator is for several classes of a record, not for data.target={target}"
        )
    if target == "class":
        return OneClass(known), ""
    if target == "number":
        count = len(numbers[0]) if numbers else 1
        return Numbers(
            [column] if count == 1 else [f"{column}_{n}" for n in range(1, count + 1)]
        ), ", which is a number"
    if lists:
        return SeveralClasses(known=known), ", which is a list of classes"
    separator = separator or next((s for s in SEPARATORS if any(s in str(raw) for raw in raws)), "")
    between = f"'{separator}' between classes" if separator else "one class in each record"
    return SeveralClasses(separator=separator, known=known), f", with {between}"


def _composed(name: str) -> str:
    """One class, however its accents are spelled: macOS takes them apart, others do not."""
    return unicodedata.normalize("NFC", name)


def _flag(column: str, cell: str) -> bool:
    try:
        return CELLS[cell.strip().lower()]
    except KeyError:
        raise ValueError(f"'{cell}' in the column {column}; expected 0 or 1") from None


def _number(column: str, cell: str | float) -> float:
    """Raises ValueError for what is no number that float32 holds."""
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > float(np.finfo(np.float32).max):
        said = f"'{cell}'" if isinstance(cell, str) else cell
        raise ValueError(f"its {column} is {said}; expected a number")
    return value
