"""Texts to be answered, from a table or a file of lines, read as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from orchard.data.labelled_text.columns import LABELS, LOOKED, PAIRS, SPLIT, TEXTS, cell
from orchard.data.labelled_text.tables import Row, is_table, lines_of, read_rows, stem_and_ending
from orchard.errors import UsageError


def read_texts(source: str, paired: bool) -> Iterator[tuple[str, str | None]]:
    """The text of every row, and the second one of a pair; of a .txt file, of every line.

    The column is the one with a usual name (text, sentence, review ...), else the one with the longest cells. What is
    no text comes as "". Raises UsageError for a file that is not there or has no second text.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        raise UsageError(f"there is no file '{source}'; expected a table of texts, or a .txt file with one a line")
    if not is_table(path):
        raise UsageError(
            f"{source} is no table of texts; expected .csv, .tsv, .jsonl, .parquet, or .txt with one a line"
        )
    if stem_and_ending(path)[1] == ".txt":
        yield from ((line, None) for _, line in lines_of(path))
        return
    names, rows, _ = read_rows(path)
    first = list(islice(rows, LOOKED))
    usual = (*TEXTS, *PAIRS, *LABELS, *SPLIT)
    if not names and first and any(str(one).strip().lower() in usual for one in first[0].cells):
        names, first = tuple(str(one) for one in first[0].cells), first[1:]
    lower = [name.strip().lower() for name in names]
    width = len(names) or max((len(row.cells) for row in first), default=1)
    text = next((lower.index(word) for word in TEXTS if word in lower), None)
    if text is None:
        text = max(range(width), key=lambda place: sum(len(str(cell(row, place))) for row in first))
    pair = next((lower.index(word) for word in PAIRS if word in lower), None)
    if paired and pair is None:
        raise UsageError(f"{source} has no second text; expected a column named {', '.join(PAIRS[:3])} or the like")
    for row in chain(first, rows):
        yield _said(row, text), _said(row, pair) if paired and pair is not None else None


def _said(row: Row, place: int) -> str:
    value: Any = cell(row, place)
    return value if isinstance(value, str) else ""
