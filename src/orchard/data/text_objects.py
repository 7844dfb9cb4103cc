"""Text in Python objects: a list of strings, a frame or a Hugging Face data set with a column of text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from orchard.data.objects import column, frame_rows, is_frame, name_of, parts_of, require_records
from orchard.data.text_files import NAMES
from orchard.errors import OrchardError, UsageError
from orchard.given import DATA, Given, source_of


def take_texts(data: Any) -> Given:
    """The documents of each split. Raises UsageError for what holds no text, OrchardError that names the record."""
    if isinstance(data, Given):
        return data
    parts = parts_of(data)
    name = name_of(parts.get("train", next(iter(parts.values()))))
    found = {split: _documents(part, f"{name}/{split}" if split else name) for split, part in parts.items()}
    digest = hashlib.sha256(repr(sorted(found.items())).encode(errors="surrogatepass"))
    return Given(source_of(DATA, name, digest.hexdigest()), found)


def _documents(data: Any, name: str) -> tuple[str, ...]:
    documents = []
    if is_frame(data):
        header, rows = frame_rows(data)
        there = [place for place, word in enumerate(header) if word.lower() in NAMES]
        if len(there) != 1:
            raise UsageError(f"{name} has columns {', '.join(header)}; expected one named {' or '.join(NAMES)}")
        documents = [(f"{name}, {where}", row[there[0]]) for where, row in rows]
    else:
        require_records(data, name)
        for index in range(len(data)):
            record = data[index]
            if isinstance(record, Mapping):
                record = record[column(record, NAMES, "text")]
            documents.append((f"{name}[{index}]", record))
    for key, said in documents:
        if not isinstance(said, str) or not said.strip():
            raise OrchardError(f"{key} is {'empty' if isinstance(said, str) else f'a {type(said).__name__}'}, no text")
    if not documents:
        raise UsageError(f"{name} is empty: it has no row")
    return tuple(said for _, said in documents)
