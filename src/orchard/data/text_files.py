"""Files of text, and tables with a column of it: JSON lines, CSV and TSV, of which every row is a document."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from orchard.data.collect import GO_ON, strangers
from orchard.data.contracts import DataSettings, Problem
from orchard.data.settings import CaptionSettings, TextSource
from orchard.data.walk import walk
from orchard.errors import OrchardError, UsageError
from orchard.packed import read_bytes

TEXTS, TABLES = (".txt", ".md"), (".jsonl", ".csv", ".tsv")
ENDINGS = tuple(ending + packed for ending in TEXTS for packed in ("", ".gz"))
TABLE_ENDINGS = tuple(ending + packed for ending in TABLES for packed in ("", ".gz"))
NAMES = ("text", "content", "body", "sentence", "document")  # of a column of text, unless it is named


def is_text(path: Path, settings: DataSettings) -> bool:
    """Is this, by its name, a file that is read as text?"""
    pattern = _pattern(settings)
    return fnmatch(path.name, pattern) if pattern else path.name.lower().endswith((*ENDINGS, *TABLE_ENDINGS))


def find_texts(folder: Path, settings: DataSettings) -> tuple[list[Path], list[Problem]]:
    """The files of text in a folder, in the order of their names, and what is left out: with a pattern those that fit
    it, else texts; where there is none, tables."""
    found, pattern = walk(folder, ("",)).files, _pattern(settings)
    for endings in ((),) if pattern else (ENDINGS, TABLE_ENDINGS):
        chosen = [name for name in found if (fnmatch(name.rsplit("/", 1)[-1], pattern) if pattern
                  else name.lower().endswith(endings))]  # fmt: skip
        if chosen:
            break
    others = strangers([name for name in found if name not in set(chosen)], (), "texts that are asked for")
    return [folder / name for name in chosen], others


def _pattern(settings: DataSettings) -> str | None:
    return settings.pattern if isinstance(settings, TextSource) else None


def is_table(path: Path) -> bool:
    return path.name.lower().endswith(TABLE_ENDINGS)


def read_documents(path: Path, settings: DataSettings) -> list[str]:
    """What a file holds: one document, or those of a table's rows.

    OrchardError names the file, and the line that is bad unless such are skipped."""
    text = _decode(path)
    if not text.strip():
        raise OrchardError(f"{path} is empty; a language model needs text to learn from")
    if not is_table(path):
        return [text]
    name = path.name.lower().removesuffix(".gz")
    wanted = settings.columns.text if isinstance(settings, TextSource | CaptionSettings) else None
    rows = _json_lines(path, text, wanted) if name.endswith(".jsonl") else _cells(path, text, wanted, name[-4:])
    documents = []
    for line, said in rows:
        if said.strip():
            documents.append(said)
        elif settings.bad_records == "refuse":
            raise OrchardError(f"{path}, line {line}: no text\nmend or remove what is bad, {GO_ON}")
    if not documents:
        raise OrchardError(f"{path} has no row with text")
    return documents


def _decode(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OrchardError(
            f"{path} is not UTF-8 (byte {error.start} is {error.object[error.start]:#04x}); convert it, for example "
            f"with iconv -f gb18030 -t utf-8"
        ) from None


def _json_lines(path: Path, text: str, wanted: str | int | None) -> Iterator[tuple[int, str]]:
    names = NAMES if wanted is None else (str(wanted),)
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            table = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise OrchardError(f"{path}, line {number} is no JSON: {str(error)[:80]}") from None
        table = table if isinstance(table, dict) else {}
        name = next((name for name in names if name in table), None)
        if name is None:
            raise OrchardError(f"{path}, line {number}: {_unknown(names, map(str, table))}")
        yield number, table[name] if isinstance(table[name], str) else ""


def _cells(path: Path, text: str, wanted: str | int | None, ending: str) -> Iterator[tuple[int, str]]:
    csv.field_size_limit(2**28)  # a document may be long
    rows = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if ending == ".tsv" else ",", strict=True)
    try:
        header = [name.strip().lower() for name in next(rows)]
        names = NAMES if wanted is None else (str(wanted).strip().lower(),)
        found = [place for place, name in enumerate(header) if name in names]
        if isinstance(wanted, int) and 1 <= wanted <= len(header):
            found = [wanted - 1]
        if len(found) != 1:
            raise UsageError(f"{path}: {_unknown(names, header)}")
        for row in rows:
            if row:
                yield rows.line_num, row[found[0]] if len(row) == len(header) else ""
    except csv.Error as error:
        raise OrchardError(f"{path}, line {rows.line_num}: {error}") from None


def _unknown(names: tuple[str, ...], there: Iterator[str] | list[str]) -> str:
    return f"no one column named {' or '.join(names)}; there is {', '.join(there)[:160]}\n" \
           "say which holds the text with --set data.columns.text=NAME"  # fmt: skip
