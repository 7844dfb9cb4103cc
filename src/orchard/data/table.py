"""Tables of path and label: CSV, TSV and their kin."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from orchard.data.collect import GO_ON, SPLIT_WORDS, Found, Record
from orchard.data.contracts import DataSettings, Problem
from orchard.data.files import Folder
from orchard.data.settings import FolderSettings, ImageColumns
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

    Raises OrchardError for a wrong encoding, a missing column, a row that does not fit, an unknown split and a file
    that is listed with two labels, each with its line.
    """
    text = _decode(path)
    lines = text.splitlines()
    if not lines:
        raise OrchardError(f"{path} is empty; expected a header such as path,label and one line for each picture")
    delimiter = max(_DELIMITERS, key=lines[0].count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header = [name.strip().lower() for name in next(rows)]
    numbered = _lines(path, rows, len(header), _DELIMITERS[delimiter])
    try:
        records, problems = read_rows(str(path), header, numbered, settings)
    except csv.Error as error:
        raise OrchardError(f"{path}, line {rows.line_num}: {error}") from None
    if not records:
        raise OrchardError(f"{path} has a header and no pictures")
    reason = f"it is a text file with {_DELIMITERS[delimiter]} between fields and a header that names path and label"
    return Found(source, "table", reason, Folder(path.parent), records, problems)


def _lines(path: Path, rows: Any, width: int, delimiters: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of a csv reader that are not empty, each with its line."""
    for row in rows:
        if not any(field.strip() for field in row):
            continue
        if len(row) != width:
            quote = f"; text with {delimiters} in it stands in double quotes" if len(row) > width else ""
            raise OrchardError(f"{path}, line {rows.line_num}: {len(row)} fields, where the header has {width}{quote}")
        yield f"line {rows.line_num}", row


def read_rows(
    table: str, header: list[str], rows: Iterable[tuple[str, Sequence[str]]], settings: DataSettings
) -> tuple[list[Record], list[Problem]]:
    """The records in rows of text, each with the place where it stands ("line 7"), and what is wrong with them.

    Raises OrchardError that names `table` and the place, for a missing column, an empty field, an unknown split and a
    file that is listed with two labels.
    """
    asked = settings.columns if isinstance(settings, FolderSettings) else ImageColumns()
    columns = {role: _column(table, header, role, getattr(asked, role)) for role in _COLUMNS}
    records: dict[str, Record] = {}
    problems: list[Problem] = []
    for place, row in rows:
        record, kind = _record(row, columns, f"{table}, {place}"), place.partition(" ")[0]
        before = records.setdefault(record.name, record)
        if before != record and settings.bad_records == "refuse":
            what = "label" if before.label != record.label else "split"
            one, two = getattr(before, what), getattr(record, what)
            raise OrchardError(
                f"{table}, {place}: '{record.name}' has {what} '{two}', and '{one}' further up\n"
                f"keep one {kind}, {GO_ON}"
            )
        if before is not record:
            problems.append(Problem(record.name, f"listed again in {place}; the first {kind} counts"))
    return list(records.values()), problems


def _decode(path: Path) -> str:
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise OrchardError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}); save the table as UTF-8"
        ) from None


def _column(path: str, header: list[str], role: str, asked: str | None) -> int | None:
    """Where a column stands: the one that is asked for, or one with a usual name.

    Raises OrchardError if it is not there or there twice; only `split` may be missing.
    """
    names = (asked.strip().lower(),) if asked is not None else _COLUMNS[role]
    found = [place for place, name in enumerate(header) if name in names]
    say = f"say which with --set data.columns.{role}=NAME"
    if len(found) > 1:
        raise OrchardError(f"{path}: columns {', '.join(header[f] for f in found)} could all be the {role}; {say}")
    if not found and (role != "split" or asked is not None):
        wanted = " or ".join(names)
        raise OrchardError(f"{path}: no column named {wanted} in the header, which has {', '.join(header)}; {say}")
    return found[0] if found else None


def _record(row: Sequence[str], columns: dict[str, int | None], here: str) -> Record:
    values = {role: row[place].strip() for role, place in columns.items() if place is not None}
    empty = next((role for role in ("path", "label") if not values[role]), None)
    if empty:
        raise OrchardError(f"{here}: the {empty} is empty")
    word = values.get("split", "")
    split = SPLIT_WORDS.get(word.lower())
    if word and split is None:
        raise OrchardError(f"{here}: split '{word}' is unknown; expected train, validation or test")
    return Record(values["path"].replace("\\", "/"), values["label"], split or "")
