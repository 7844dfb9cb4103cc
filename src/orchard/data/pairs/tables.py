"""Tables of pairs: one pair a line, in tab-separated or comma-separated columns or as JSON."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchard.data.pairs.contracts import Parse
from orchard.data.pairs.lines import Lines
from orchard.data.settings import TextPairSource
from orchard.errors import OrchardError, UsageError
from orchard.files import open_regular

FIRST, LONGEST = 16, 2**20  # lines of a table that may be blank before the first, and its bytes
ENDINGS = (".tsv", ".csv", ".jsonl")
# Names of columns; nothing else in a first line without names that are asked for is one, so that no pair is lost.
_NAMES = {"src", "tgt", "trg", "source", "target", "input", "output", "question", "answer", "sentence1", "sentence2"}
# Codes of languages that tables are headed by. Words too ("no", "hi"): that such a line is no pair is said.
_CODES = re.compile(
    "ar|bg|bn|ca|cs|da|de|el|en|es|et|eu|fa|fi|fr|ga|gl|gu|he|hi|hr|hu|hy|id|is|it|ja|ka|kk|ko|lt|lv|mk|ml|mr|ms|nb|nl"
    "|nn|no|pl|pt|ro|ru|sk|sl|sq|sr|sv|sw|ta|te|th|tl|tr|uk|ur|vi|zh"
)


@dataclass(frozen=True)
class Layout:
    """How the lines of a table are read."""

    parse: Parse
    first: int  # the number of the first line that is not blank
    header: bool  # it names the columns
    known: bool  # by names that are no text, or were asked for
    names: tuple[str, str]  # of the two columns


def is_table(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(ENDINGS)


def names_pairs(path: Path) -> bool:
    """Whether the first line of a table says that it holds pairs: by the names of columns or keys, or "translation".

    Raises OSError and the errors of damaged packing, ValueError for what is no text.
    """
    packed = path.name.lower().endswith(".gz")
    with gzip.open(path) if packed else open_regular(path) as file:
        first = next((line for _ in range(FIRST) if (line := file.readline(LONGEST)).strip()), b"").decode()
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".jsonl"):
        found = json.loads(first)
        if not isinstance(found, dict):
            return False
        return isinstance(found.get("translation"), dict) or _heads([k for k, v in found.items() if isinstance(v, str)])
    return _heads(_cells(first.strip("\ufeff\r\n"), "\t" if name.endswith(".tsv") else ","))


def _heads(names: Sequence[str]) -> bool:
    """Whether the first two are names of columns of pairs: known words, or two languages."""
    words = [name.strip().lower() for name in names[:2]]
    return len(words) == 2 and (_NAMES.issuperset(words) or _are_languages(words))


def is_language(word: str) -> bool:
    """Whether a word is the code of a language that sets of pairs often have."""
    return bool(_CODES.fullmatch(word))


def _are_languages(words: Sequence[str]) -> bool:
    return all(map(is_language, words)) and words[0] != words[1]


def find_layout(lines: Lines, settings: TextPairSource) -> Layout:
    """Look at the first line. JSON lines are objects, or hold one as "translation"; where no names are given, the
    first two columns or texts are the pair. Raises UsageError for a name that is not there, OrchardError for less than
    two columns."""
    asked = settings.source_language, settings.target_language
    first = next(number for number in range(len(lines)) if lines[number].strip())
    name = lines.path.name.lower().removesuffix(".gz")
    if name.endswith(".jsonl"):
        try:
            found = _object(lines[first])
        except ValueError as error:
            raise OrchardError(f"{lines.key(first)}: {error}") from None
        texts = [key for key, value in found.items() if isinstance(value, str)]
        names = _names(lines, asked, texts)
        return Layout(lambda line: _values(_object(line), names), first, False, False, names)
    delimiter = "\t" if name.endswith(".tsv") else ","
    cells = _cells(lines[first], delimiter)
    if len(cells) < 2:
        raise OrchardError(f"{lines.key(first)}: one column only; a pair takes two")
    words = [cell.strip().lower() for cell in cells[:2]]
    known = _NAMES.issuperset(words) or not {*asked}.isdisjoint(cells)
    header = known or _are_languages(words)
    names = _names(lines, asked, cells) if header else (asked[0] or "source", asked[1] or "target")
    places = (cells.index(names[0]), cells.index(names[1])) if header else (0, 1)

    def parse(line: str) -> Sequence[str]:
        row = _cells(line, delimiter)
        if len(row) <= max(places):
            raise ValueError(f"it has {len(row)} columns, where there should be {max(places) + 1} or more")
        return row[places[0]], row[places[1]]

    return Layout(parse, first, header, known, names)


def _names(lines: Lines, asked: tuple[str | None, str | None], found: Sequence[str]) -> tuple[str, str]:
    """The names of the two columns: those that are asked for, else the first that are there."""
    for name in asked:
        if name is not None and name not in found:
            raise UsageError(f"{lines.path} has no column '{name}'; it has {', '.join(found)}")
    rest = [name for name in found if name not in asked]
    if len(rest) < asked.count(None):
        raise OrchardError(f"{lines.path} has {len(found)} columns of text; a pair takes two")
    source = asked[0] or rest.pop(0)
    return source, asked[1] or rest[0]


def _object(line: str) -> Mapping[str, object]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    found = found.get("translation", found) if isinstance(found, dict) else found
    if not isinstance(found, dict):
        raise ValueError("it is not an object with two texts")
    return found


def _values(found: Mapping[str, object], names: tuple[str, str]) -> Sequence[str]:
    texts = [found.get(name) for name in names]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"it has no text under '{names[0]}' or '{names[1]}'")
    return [str(text) for text in texts]


def _cells(line: str, delimiter: str) -> list[str]:
    """The fields of one line. Of tab-separated files quotes are characters like any other."""
    if delimiter == "\t":
        return line.split("\t")
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error as error:
        raise ValueError(f"no line of a CSV by itself ({error}); a text with a line break cannot be read") from None
