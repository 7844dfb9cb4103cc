"""Texts with labels in Python objects: lists of (text, label), of records, a frame, a Hugging Face data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchard.data.labelled_text.collect import Collected
from orchard.data.labelled_text.columns import LABELS, PAIRS, TEXTS
from orchard.data.object_labels import name_classes, read_label
from orchard.data.objects import is_frame, name_of, parts_of, require_records
from orchard.errors import UsageError
from orchard.given import DATA, Given, source_of

USUAL = ((TEXTS, "text"), (LABELS, "label"))


def take_labelled_texts(data: Any) -> Given:
    """The texts and labels of each split, read once.

    A record is a pair (text, label), a triple (text, second text, label), or has a column of each by a usual name.
    Raises UsageError for what holds no texts with labels, OrchardError that names the item.
    """
    if isinstance(data, Given):
        return data
    parts = parts_of(data)
    name = name_of(parts.get("train", next(iter(parts.values()))))
    found: Collected | None = None
    digest = hashlib.sha256()
    for split, part in parts.items():
        called = f"{name}/{split}" if split else name
        rows = list(_records(part, called))
        paired = rows[0][1] is not None
        found = found or Collected(paired)
        found.add_source(f"{called}[{{}}]")
        classes = _classes(part)
        labels = name_classes([read_label(label, classes, f"{called}[{n}]") for n, (_, _, label) in enumerate(rows)],
                              classes, called)  # fmt: skip
        for number, ((text, pair, _), label) in enumerate(zip(rows, labels, strict=True)):
            found.add(number, text, pair, label, split)
            digest.update(repr((split, text, pair, label)).encode(errors="surrogatepass"))
    assert found is not None
    return Given(source_of(DATA, name, digest.hexdigest()), found)


def _records(data: Any, name: str) -> Iterator[tuple[Any, Any, Any]]:
    if is_frame(data):
        header = [str(one) for one in data.columns]
        places = [_place(header, usual, role, name) for usual, role in USUAL]
        pair = next((n for n, word in enumerate(header) if word.lower() in PAIRS), None)
        if not len(data):
            raise UsageError(f"{name} is empty: it has no row")
        for row in data.itertuples(index=False, name=None):
            yield row[places[0]], None if pair is None else row[pair], row[places[1]]
        return
    require_records(data, name)
    for index in range(len(data)):
        yield _record(data[index], f"{name}[{index}]")


def _record(record: Any, key: str) -> tuple[Any, Any, Any]:
    if isinstance(record, Mapping):
        header = [str(one) for one in record]
        keys = list(record)
        text, label = (record[keys[_place(header, usual, role, key)]] for usual, role in USUAL)
        pair = next((one for one in keys if str(one).lower() in PAIRS), None)
        return text, None if pair is None else record[pair], label
    if isinstance(record, list | tuple) and len(record) in (2, 3) and isinstance(record[0], str):
        return record[0], record[1] if len(record) == 3 else None, record[-1]
    raise UsageError(f"{key} is a {type(record).__name__}; expected (text, label), (text, text, label), or a record "
                     "with a text and a label")  # fmt: skip


def _place(header: Sequence[str], usual: Sequence[str], role: str, key: str) -> int:
    lower = [word.lower() for word in header]
    place = next((lower.index(word) for word in usual if word in lower), None)
    if place is None:
        raise UsageError(f"{key} has {', '.join(header)}; expected a {role} named {', '.join(usual[:4])} or the like")
    return place


def _classes(data: Any) -> tuple[str, ...]:
    """Names of classes that a Hugging Face data set knows for its numbers."""
    features = getattr(data, "features", None) or {}
    for name in LABELS:
        names = getattr(features.get(name), "names", None) if isinstance(features, Mapping) else None
        if names:
            return tuple(names)
    return ()
