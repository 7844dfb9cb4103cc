"""Tables of paths and labels: CSV, TSV and their kin."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchard.data.collect import GO_ON, SPLIT_WORDS, Found, Record
from orchard.data.contracts import DataSettings, Problem
from orchard.data.files import Files, Folder
from orchard.data.settings import FolderSettings, ImageColumns
from orchard.data.targets import Raw
from orchard.errors import OrchardError
from orchard.packed import read_bytes

ENDINGS = frozenset({".csv", ".tsv", ".txt"})
_COLUMNS = {
    "path": ("path", "file", "filename", "image"),
    "label": ("label", "class", "category"),
    "split": ("split",),
}
_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}


def read_table(path: Path, source: str, settings: DataSettings) -> Found:
    """Read a table with a header; paths are relative to its folder.

    The labels are in one column or in several: those that are named, else the others where all of them hold 0 and 1.

    Raises OrchardError for a wrong encoding, a missing column, a row that does not fit, an unknown split and a file
    that is listed with two labels, each with its line.
    """
    text = _decode(path)
    lines = text.splitlines()
    if not lines:
        raise OrchardError(f"{path} is empty; expected a header such as path,label and one line for each picture")
    delimiter = max(_DELIMITERS, key=lines[0].count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header = [name.strip() for name in next(rows)]
    numbered = _lines(path, rows, len(header), _DELIMITERS[delimiter])
    try:
        table = read_rows(str(path), header, numbered, settings)
    except csv.Error as error:
        raise OrchardError(f"{path}, line {rows.line_num}: {error}") from None
    if not table.records:
        raise OrchardError(f"{path} has a header and no pictures")
    named = "path and label" if not table.columns else "the path"
    reason = f"it is a text file with {_DELIMITERS[delimiter]} between fields and a header that names {named}"
    return table.found(source, "table", reason, Folder(path.parent))


def _lines(path: Path, rows: Any, width: int, delimiters: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of a csv reader that are not empty, each with its line."""
    for row in rows:
        if not any(field.strip() for field in row):
            continue
        if len(row) != width:
            quote = f"; text with {delimiters} in it stands in double quotes" if len(row) > width else ""
            raise OrchardError(f"{path}, line {rows.line_num}: {len(row)} fields, where the header has {width}{quote}")
        yield f"line {rows.line_num}", row


@dataclass(frozen=True)
class Table:
    """What stands in rows of text: `columns` where labels are the cells of several, else the name of the one."""

    records: list[Record]
    problems: list[Problem]
    columns: tuple[str, ...]
    column: str

    def found(self, source: str, format: str, reason: str, files: Files) -> Found:
        return Found(source, format, reason, files, self.records, self.problems, self.columns, self.column)


def read_rows(
    table: str, header: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], settings: DataSettings
) -> Table:
    """The records in rows of text, each with the place where it stands ("line 7"), and what is wrong with them.

    Raises OrchardError that names `table` and the place, for a missing column, an empty path or class, an unknown split
    and a file that is listed with two labels.
    """
    asked = settings.columns if isinstance(settings, FolderSettings) else ImageColumns()
    path, split = (_column(table, header, role, getattr(asked, role)) for role in ("path", "split"))
    name = None if isinstance(asked.label, tuple) else asked.label
    if isinstance(asked.label, tuple):
        labels = [_column(table, header, "label", one) for one in asked.label]
    elif asked.label is None and not any(name.lower() in _COLUMNS["label"] for name in header):
        rows = list(rows)
        labels = [*_flags([row for _, row in rows], len(header), settings, {path, split})]
    else:
        labels = []
    several = bool(labels)
    places = [place for place in labels if place is not None]
    if not several:
        places = [place for place in [_column(table, header, "label", name)] if place is not None]
    read = _Row(path or 0, split, places, several, several or _may_be_empty(settings))
    records: dict[str, Record] = {}
    problems: list[Problem] = []
    for place, row in rows:
        record, kind = read.record(row, f"{table}, {place}"), place.partition(" ")[0]
        before = records.setdefault(record.name, record)
        if before != record and settings.bad_records == "refuse":
            what = "label" if before.label != record.label else "split"
            one, two = (_said(getattr(r, what)) for r in (before, record))
            raise OrchardError(
                f"{table}, {place}: '{record.name}' has {what} '{two}', and '{one}' further up\n"
                f"keep one {kind}, {GO_ON}"
            )
        if before is not record:
            problems.append(Problem(record.name, f"listed again in {place}; the first {kind} counts"))
    names = tuple(header[place] for place in places)
    return Table(list(records.values()), problems, names if several else (), "" if several else names[0])


def _may_be_empty(settings: DataSettings) -> bool:
    """Is an empty label one of several bad ones, to be named with its record, and not the lack of a class?"""
    if not isinstance(settings, FolderSettings):
        return False
    return settings.target in ("classes", "number") or settings.label_separator is not None


def _flags(rows: Sequence[Sequence[str]], width: int, settings: DataSettings, others: set[int | None]) -> list[int]:
    """The columns beside `others`, where these are two or more and hold nothing but 0 and 1, and are not said to be
    something else."""
    columns = [place for place in range(width) if place not in others]
    if not isinstance(settings, FolderSettings) or settings.target in ("class", "number") or settings.label_separator:
        return []
    right = all(row[place].strip() in ("0", "1") for row in rows for place in columns)
    return columns if right and len(columns) > 1 else []


def _said(label: Raw) -> str:
    return label if isinstance(label, str) else ", ".join(map(str, label))


def _decode(path: Path) -> str:
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise OrchardError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}); save the table as UTF-8"
        ) from None


def _column(path: str, header: Sequence[str], role: str, asked: str | None) -> int | None:
    """Where a column stands: the one that is asked for, or one with a usual name.

    Raises OrchardError if it is not there or there twice; only `split` may be missing.
    """
    names = (asked.strip().lower(),) if asked is not None else _COLUMNS[role]
    found = [place for place, name in enumerate(header) if name.lower() in names]
    several = ", or several as NAME,NAME" if role == "label" else ""
    say = f"say which with --set data.columns.{role}=NAME{several}"
    if len(found) > 1:
        raise OrchardError(f"{path}: columns {', '.join(header[f] for f in found)} could all be the {role}; {say}")
    if not found and (role != "split" or asked is not None):
        wanted = " or ".join(names)
        raise OrchardError(f"{path}: no column named {wanted} in the header, which has {', '.join(header)}; {say}")
    return found[0] if found else None


@dataclass(frozen=True)
class _Row:
    """Where the parts of a record stand in a row."""

    path: int
    split: int | None
    labels: list[int]
    several: bool  # the label is the cells of these columns
    may_be_empty: bool  # a label: it is looked at later, with all others

    def record(self, row: Sequence[str], here: str) -> Record:
        path, labels = row[self.path].strip(), tuple(row[place].strip() for place in self.labels)
        if not path or not (self.may_be_empty or labels[0]):
            raise OrchardError(f"{here}: the {'label' if path else 'path'} is empty")
        word = "" if self.split is None else row[self.split].strip()
        split = SPLIT_WORDS.get(word.lower())
        if word and split is None:
            raise OrchardError(f"{here}: split '{word}' is unknown; expected train, validation or test")
        return Record(path.replace("\\", "/"), labels if self.several else labels[0], split or "")
