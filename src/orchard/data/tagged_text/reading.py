"""Files of tagged text: columns of words and tags (CoNLL), and JSON lines with a list of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchard.data.tagged_text.tags import is_chunk_tag
from orchard.errors import OrchardError, UsageError
from orchard.packed import read_bytes

WORDS = ("tokens", "words")  # what JSON lines and Python objects call the words, unless it is said
TAGS = ("ner_tags", "tags", "labels", "pos_tags")
DOCUMENT = "-DOCSTART-"  # what CoNLL-2003 has between documents


@dataclass
class Raw:
    """A sentence as it stands in a file: its tags in whatever scheme; `fault` says what is wrong with it, and where."""

    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)  # of each word: its file and line
    fault: tuple[str, str] | None = None  # the key of what is bad, and what is wrong with it

    def spoil(self, key: str, what: str) -> None:
        self.fault = self.fault or (key, what)


def read_tagged(path: Path, column: str | int | None) -> list[Raw]:
    """The sentences of a file, bad ones among them. `column` holds the tags: of columns its number from 1, by default
    the last; of JSON lines its name. Raises OrchardError for a file that cannot be read or has no sentence."""
    found = parse_tagged(path, read_bytes(path), column)
    if not found:
        raise OrchardError(f"{path} has no sentence; expected a word and its tag a line, or JSON lines")
    return found


def parse_tagged(path: Path, data: bytes, column: str | int | None) -> list[Raw]:
    """The sentences in what a file holds, or its first part does."""
    parse = _json_lines if path.name.lower().removesuffix(".gz").endswith(".jsonl") else _columns
    return [one for one in parse(path, list(_lines(data)), column) if one.words or one.fault]


def _lines(data: bytes) -> Iterator[str | bytes]:
    """The lines of a file; as bytes what is no UTF-8."""
    for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        try:
            yield line.decode().rstrip("\r")
        except UnicodeDecodeError:
            yield line


def _columns(path: Path, lines: Sequence[str | bytes], column: str | int | None) -> Iterator[Raw]:
    """A word and its tag a line, with a tab or spaces between; an empty line ends a sentence. More columns may stand
    between. Comments begin with #; a word may, too, but then it has a tag."""
    if isinstance(column, str):
        raise UsageError(f"{path} has columns; data.tag_column is '{column}', expected its number, from 1")
    now = Raw()
    width = 0
    for number, line in enumerate(lines, 1):
        key = f"{path}, line {number}"
        if isinstance(line, bytes):
            now.spoil(key, "it is not UTF-8; convert the file, for example with iconv -f gb18030 -t utf-8")
            continue
        line = line.rstrip()
        cells = [cell.strip() for cell in line.split("\t")] if "\t" in line else line.split()
        if not any(cells) or cells[0] == DOCUMENT:
            yield now
            now = Raw()
        elif line.startswith("#") and not (len(cells) > 1 and is_chunk_tag(cells[-1])):
            continue
        else:
            width = width or (len(cells) if len(cells) > 1 else 0)
            if len(cells) < 2:
                now.spoil(key, f"one column, '{cells[0][:40]}'; expected a word and its tag")
            elif len(cells) != width:
                now.spoil(key, f"{len(cells)} columns; the lines before have {width}")
            elif column is not None and not 1 < column <= width:
                raise UsageError(f"{key} has {width} columns; data.tag_column is {column}")
            else:
                now.words.append(cells[0])
                now.tags.append(cells[-1 if column is None else column - 1])
                now.keys.append(key)
                if not (cells[0] and now.tags[-1]):
                    now.spoil(key, "its word or its tag is empty")
    yield now


def _json_lines(path: Path, lines: Sequence[str | bytes], column: str | int | None) -> Iterator[Raw]:
    for number, line in enumerate(lines, 1):
        key, found = f"{path}, line {number}", Raw()
        if isinstance(line, bytes):
            found.spoil(key, "it is not UTF-8")
            yield found
            continue
        if not line.strip():
            continue
        try:
            table = json.loads(line)
            if not isinstance(table, dict):
                raise ValueError("no table")
        except (ValueError, RecursionError) as error:
            found.spoil(key, f"it is no JSON: {str(error)[:80]}")
            yield found
            continue
        names = TAGS if column is None else (str(column),)
        words, tags = (next((table[name] for name in known if name in table), None) for known in (WORDS, names))
        yield raw_sentence(words, tags, key, names)


def raw_sentence(words: object, tags: object, key: str, names: Sequence[str] = TAGS) -> Raw:
    """A sentence of two lists; what they should be and are not is its fault."""
    found = Raw()
    for what, value, known in (("words", words, WORDS), ("tags", tags, names)):
        if not isinstance(value, list | tuple):
            found.spoil(key, f"no list of {what}; expected one named {' or '.join(known)}")
        elif not all(isinstance(one, str) and one.strip() for one in value):
            odd = next(one for one in value if not (isinstance(one, str) and one.strip()))
            more = "; numbers need names" if isinstance(odd, int) else ""
            found.spoil(key, f"{odd!r} is among its {what}; expected words that are not empty{more}")
    if not found.fault:
        assert isinstance(words, list | tuple)
        assert isinstance(tags, list | tuple)
        if len(words) != len(tags):
            found.spoil(key, f"{len(words)} words and {len(tags)} tags; expected one for each")
        found.words, found.tags, found.keys = list(words), list(tags), [key] * len(words)
    return found
