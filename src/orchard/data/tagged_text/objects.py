"""Tagged text in Python objects: a list of (words, tags), of records, or a Hugging Face data set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from orchard.data.objects import innermost, name_of, parts_of, require_records
from orchard.data.tagged_text.reading import TAGS, WORDS, Raw, raw_sentence
from orchard.errors import UsageError
from orchard.given import DATA, Given, source_of


def take_tagged(data: Any) -> Given:
    """The sentences of each split. Raises UsageError for what holds no words with tags; a sentence that is not right is
    found when the set is opened."""
    if isinstance(data, Given):
        return data
    parts = parts_of(data)
    name = name_of(parts.get("train", next(iter(parts.values()))))
    found = {split or "train": _sentences(part, f"{name}/{split}" if split else name) for split, part in parts.items()}
    digest = hashlib.sha256(repr([(split, one.words, one.tags) for split in sorted(found) for one in found[split]])
                            .encode(errors="surrogatepass"))  # fmt: skip
    return Given(source_of(DATA, name, digest.hexdigest()), found)


def _sentences(data: Any, name: str) -> list[Raw]:
    require_records(data, name)
    names = _tag_names(data)
    found = []
    for index in range(len(data)):
        record = data[index]
        if isinstance(record, Mapping):
            words, tags = (next((record[key] for key in known if key in record), None) for known in (WORDS, TAGS))
        elif isinstance(record, tuple | list) and len(record) == 2:
            words, tags = record
        else:
            words = tags = None
        if index == 0 and not all(_is_list(one) for one in (words, tags)):
            raise UsageError(f"{name}[0] is no list of words with a list of tags; expected (words, tags), or a record "
                             f"with {' or '.join(WORDS)} and {' or '.join(TAGS)}")  # fmt: skip
        if names and isinstance(tags, list | tuple):
            tags = [names[tag] if isinstance(tag, int) and 0 <= tag < len(names) else tag for tag in tags]
        found.append(raw_sentence(words, tags, f"{name}[{index}]"))
    return found


def _is_list(value: object) -> bool:
    """Is this a list of words or of tags?"""
    return isinstance(value, list | tuple) and all(isinstance(one, str | int) for one in value)


def _tag_names(data: Any) -> Sequence[str]:
    """What the numbers of a Hugging Face data set's tags stand for (`ClassLabel`); nothing for others."""
    features = getattr(innermost(data), "features", None)
    if not isinstance(features, Mapping):
        return ()
    column = next((features[name] for name in TAGS if name in features), None)
    names = getattr(getattr(column, "feature", None), "names", None)
    return tuple(names) if names else ()
