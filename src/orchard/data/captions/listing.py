"""Files that say which picture has which caption: tables with a header, JSON lines, and lines of name and sentence."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from orchard.data.captions.contracts import CaptionSettings
from orchard.data.collect import GO_ON
from orchard.data.contracts import Problem
from orchard.data.walk import IMAGES as ENDINGS
from orchard.errors import OrchardError, UsageError
from orchard.packed import DAMAGE, unpacked_bytes

NAMES = {
    "picture": ("file_name", "filename", "file", "path", "image", "picture"),
    "text": ("text", "caption", "captions", "sentence", "comment"),
}
_ENDINGS = "|".join(re.escape(ending) for ending in sorted(ENDINGS, key=len, reverse=True))
# `1.jpg#zhm#0 sentence` (Flickr8k-CN), `1.jpg#0<TAB>sentence` (Flickr8k), `1.jpg<TAB>sentence`, `1.jpg,sentence`.
_LINE = re.compile(
    rf"(?P<name>.+?(?:{_ENDINGS}))(?P<mark>(?:#\w+)*)(?:(?P<between>[ \t,]+)(?P<text>.*))?", re.IGNORECASE
)
_QUOTED = re.compile(r'"[^"]*(?:""[^"]*)*"')
LISTINGS = tuple(ending + packed for ending in (".txt", ".csv", ".jsonl") for packed in ("", ".gz"))
Pair = tuple[str, str, int]  # name of a picture, a caption, the line where it stands


def is_listing(name: str) -> bool:
    """Is this, by its name, a file of captions: `captions.txt`, `x.caption.txt.gz`, `metadata.jsonl` and their kin?"""
    file = name.rsplit("/", 1)[-1].lower()
    return file.endswith(LISTINGS) and (file.startswith("metadata.") or "caption" in file)


def read_listing(path: str, data: bytes, settings: CaptionSettings) -> tuple[list[Pair], list[Problem]]:
    """The pairs in a file of captions, whose content is `data`, in order, and what is wrong with its lines.

    Raises OrchardError for a wrong encoding, for a table without the columns, and for a bad line unless such are
    skipped.
    """
    text = _decode(path, data)
    if path.lower().removesuffix(".gz").endswith(".jsonl"):
        found = _json_lines(path, text, settings)
    else:
        first = next((line for line in text.splitlines() if line.strip()), "")
        bare = settings.header != "yes" and _LINE.fullmatch(
            _unquoted(first.partition(",")[0]) if "," in first else first
        )
        if bare and path.lower().removesuffix(".gz").endswith(".csv") and "," in first:
            found = _rows(path, text)
        else:
            found = _lines(text) if bare else _table(path, text, settings)
    pairs: list[Pair] = []
    problems: list[Problem] = []
    for number, name, sentence, what in found:
        what = what or ("the caption is empty" if not sentence.strip() else "") or ("" if name else "no picture")
        if what and settings.bad_records == "refuse":
            raise OrchardError(f"{path}, line {number}: {what}\nmend or remove what is bad, {GO_ON}")
        if what:
            problems.append(Problem(f"{path}, line {number}", f"{what}; left out"))
        else:
            pairs.append((name.replace("\\", "/"), sentence.strip(), number))
    return pairs, problems


def _decode(path: str, data: bytes) -> str:
    try:
        data = unpacked_bytes(data) if path.lower().endswith(".gz") else data
    except (OSError, ValueError, *DAMAGE) as error:
        raise OrchardError(f"{path} is damaged ({error}); fetch it again") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise OrchardError(f"{path}, line {line}: this is not UTF-8; save the file as UTF-8") from None


Found = Iterator[tuple[int, str, str, str]]  # line, name, caption, what is wrong


def _unquoted(field: str) -> str:
    """A field of a CSV without the quotes around it, doubled ones inside undone (RFC 4180); any other as it is."""
    return field[1:-1].replace('""', '"') if _QUOTED.fullmatch(field) else field


def _rows(path: str, text: str) -> Found:
    """A CSV without a header: name, caption. Commas of a caption without quotes are its own."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in rows:
            if row:
                yield rows.line_num, row[0].strip().partition("#")[0], ",".join(row[1:]), ""
    except csv.Error as error:
        raise OrchardError(f"{path}, line {rows.line_num}: {error}") from None


def _lines(text: str) -> Found:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            found = _LINE.fullmatch(line.rstrip("\r"))
            if found is None:
                yield number, "", "", f"no picture's name at the beginning: '{line[:40]}'"
            else:
                said = found["text"] or ""
                yield (
                    number,
                    found["name"],
                    _unquoted(said) if found["between"] and "," in found["between"] else said,
                    "",
                )


def _table(path: str, text: str, settings: CaptionSettings) -> Found:
    first = text.lstrip("\n").partition("\n")[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(",\t;|", key=first.count), strict=True)
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        name, caption = (_place(path, role, header, settings) for role in ("picture", "text"))
        for row in rows:
            if len(row) == len(header):
                yield rows.line_num, row[name].strip(), row[caption], ""
            elif row:
                yield rows.line_num, "", "", f"{len(row)} fields, where the header has {len(header)}"
    except csv.Error as error:
        raise OrchardError(f"{path}, line {rows.line_num}: {error}") from None


def _place(path: str, role: str, header: list[str], settings: CaptionSettings) -> int:
    wanted = getattr(settings.columns, role)
    if isinstance(wanted, int) and 1 <= wanted <= len(header):
        return wanted - 1
    names = (str(wanted).lower(),) if wanted is not None else NAMES[role]
    found = [place for place, name in enumerate(header) if name in names]
    if len(found) != 1:
        raise UsageError(
            f"{path}: {len(found) or 'no'} columns could be the {role} ({' or '.join(names)}); the first line has "
            f"{', '.join(header)[:200]}\nsay which with --set data.columns.{role}=NAME"
        )
    return found[0]


def _json_lines(path: str, text: str, settings: CaptionSettings) -> Found:
    roles = {
        role: (wanted,) if isinstance(wanted := getattr(settings.columns, role), str) else names
        for role, names in NAMES.items()
    }
    expected = " and ".join(" or ".join(names) for names in roles.values())
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            table: Any = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, "", "", f"not JSON: {error.msg}"
            continue
        table = table if isinstance(table, dict) else {}
        values: list[Any] = [next((table[n] for n in names if n in table), None) for names in roles.values()]
        name, said = values
        sentences = said if isinstance(said, list) and said else [said]
        if isinstance(name, str) and all(isinstance(sentence, str) for sentence in sentences):
            yield from ((number, name, sentence, "") for sentence in sentences)
        else:
            yield number, "", "", f"expected an object with {expected}"
