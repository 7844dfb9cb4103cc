"""Tables of texts as rows, one file after the other: CSV, TSV, JSON lines, Parquet, and fastText's marked lines."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from orchard.errors import OrchardError
from orchard.files import open_regular
from orchard.packed import DAMAGE

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet", ".txt")
DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
MARK = "__label__"  # fastText's, before each label at the beginning of a line
LONGEST = 2**24  # characters of one field
FIRST = 20  # rows that are looked at


@dataclass(frozen=True)
class Row:
    """A row of a table: the number of its line (or record), and its cells."""

    number: int
    cells: Sequence[Any]


def stem_and_ending(path: Path) -> tuple[str, str]:
    """A file's name without .gz, cut before its ending."""
    name = path.name.lower().removesuffix(".gz")
    stem, _, ending = name.rpartition(".")
    return stem, f".{ending}"


def is_table(path: Path) -> bool:
    return stem_and_ending(path)[1] in ENDINGS


def read_rows(path: Path) -> tuple[tuple[str, ...], Iterator[Row], str]:
    """The names of columns where the format has them, all rows as they stand (of a CSV with its first line), and what
    is said of a row's place, with {} for its number.

    Rows are read as they are asked for. Raises OrchardError for what is no UTF-8, no JSON or no table, with its line.
    """
    ending = stem_and_ending(path)[1]
    if ending == ".parquet":
        return _parquet(path)
    if ending == ".jsonl":
        names = _keys(path)
        return names, _json_rows(path, names), f"{_escaped(path)}, line {{}}"
    if ending == ".txt":
        return ("label", "text"), _marked_rows(path), f"{_escaped(path)}, line {{}}"
    return (), _cells(path), f"{_escaped(path)}, line {{}}"


def _escaped(path: Path) -> str:
    return str(path).replace("{", "{{").replace("}", "}}")


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """The text of a file, packed by gzip or not; what goes wrong while it is read names the file, and the line that is
    no UTF-8."""
    try:
        with _bytes(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
            yield text
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except DAMAGE as error:
        raise OrchardError(f"{path} cannot be unpacked: {error}") from None
    except OSError as error:
        raise OrchardError(f"{path} cannot be read: {error.strerror or error}") from None


def _bytes(path: Path) -> Any:
    return gzip.open(path) if path.name.lower().endswith(".gz") else open_regular(path)


def _not_utf8(path: Path) -> OrchardError:
    """Which line it is: a text is decoded in blocks, so it is looked for again."""
    with _bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = f"byte 0x{line[error.start]:02x}"
                return OrchardError(
                    f"{path}, line {number}: not UTF-8 ({byte}); save it as UTF-8, for example with iconv"
                )
    return OrchardError(f"{path} is not UTF-8")


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, by their numbers from 1, without their ends."""
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.rstrip("\r\n")


def _cells(path: Path) -> Iterator[Row]:
    """Rows of a CSV, with quoted fields over several lines, or of a TSV, where a quote is a character like others."""
    csv.field_size_limit(LONGEST)
    with opened(path) as file:
        first = next((line for line in file if line.strip()), "")
    ending = stem_and_ending(path)[1]
    delimiter = "\t" if ending == ".tsv" else max(DELIMITERS, key=first.count)
    quoting: Any = csv.QUOTE_NONE if ending == ".tsv" else csv.QUOTE_MINIMAL
    with opened(path) as file:
        rows = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
        try:
            for row in rows:
                if any(cell.strip() for cell in row):
                    yield Row(rows.line_num, row)
        except csv.Error as error:
            raise OrchardError(f"{path}, line {rows.line_num}: {error}") from None


def _keys(path: Path) -> tuple[str, ...]:
    """The keys of the first objects, in their order."""
    names: dict[str, None] = {}
    for count, (number, line) in enumerate(lines_of(path)):
        if count == FIRST:
            break
        names |= dict.fromkeys(_object(path, number, line))
    return tuple(names)


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
        line.encode()
    except (ValueError, RecursionError) as error:
        raise OrchardError(f"{path}, line {number}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise OrchardError(f"{path}, line {number}: expected an object with a text and a label")
    return found


def _json_rows(path: Path, names: Sequence[str]) -> Iterator[Row]:
    for number, line in lines_of(path):
        found = _object(path, number, line)
        yield Row(number, [found.get(name) for name in names])


def _marked_rows(path: Path) -> Iterator[Row]:
    """fastText's lines: labels with their mark, then the text; several labels are a list."""
    for number, line in lines_of(path):
        labels, words = [], line.split()
        while words and words[0].startswith(MARK):
            labels.append(words.pop(0).removeprefix(MARK))
        text = line.split(maxsplit=len(labels))[len(labels)] if words else ""
        yield Row(number, [labels[0] if len(labels) == 1 else labels, text])


def _parquet(path: Path) -> tuple[tuple[str, ...], Iterator[Row], str]:
    """Rows of a Parquet file, a group at a time."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise OrchardError(
            f"{path}: Parquet is read with pyarrow; install it with pip install 'orchard[text]'"
        ) from None
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise OrchardError(f"{path} is no Parquet file: {error}") from None
    names = tuple(file.schema_arrow.names)

    def rows() -> Iterator[Row]:
        number = 0
        for batch in file.iter_batches(1000):
            for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                number += 1
                yield Row(number, cells)

    return names, rows(), f"{_escaped(path)}, row {{}}"
